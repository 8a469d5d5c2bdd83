// Which samples are shown, in which order. The state is plain strings and stands in the address
// after the #, so that a view can be linked to; only what differs from the start is written.

const START = {
  query: '',
  task: '',
  verdict: '',
  run: '',
  status: '',
  failure: '',
  low: '',
  high: '',
  images: '',
  sort: '',
  page: '1',
  open: '',
};

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const state = { ...START };
  for (const name of Object.keys(START)) {
    if (given.has(name)) state[name] = given.get(name);
  }
  return state;
}

function writeAddress(state) {
  const changed = Object.entries(state).filter(([name, value]) => value !== START[name]);
  const hash = new URLSearchParams(changed).toString();
  // Without a new entry in the history: typing a word would make one a letter.
  history.replaceState(null, '', hash ? `#${hash}` : location.pathname + location.search);
}

/** [value, words] of every choice of a select. */
function choices() {
  const runs = DATA.runs.map((run, position) => [String(position), `${run.letter} ${run.label}`]);
  const verdicts = [
    ['', 'any'],
    ['right', DATA.runs.length > 1 ? 'all runs right' : 'right'],
    ['wrong', DATA.runs.length > 1 ? 'all runs wrong' : 'wrong'],
  ];
  if (DATA.runs.length > 1) {
    verdicts.push(['differ', 'runs disagree']);
    DATA.runs.forEach((a, i) =>
      DATA.runs.forEach((b, j) => {
        if (i !== j) verdicts.push([`${i}>${j}`, `${a.letter} right, ${b.letter} wrong`]);
      }),
    );
  }
  const orders = [['', 'as in the benchmark'], ['worst', 'lowest IoU first'], ['best', 'highest IoU first']];
  if (DATA.runs.length > 1) orders.push(['spread', 'IoU differs most first']);
  return {
    task: [['', 'all'], ...DATA.tasks.map((task) => [task, task])],
    verdict: verdicts,
    run: [['', DATA.runs.length > 1 ? 'any run' : 'the run'], ...runs],
    status: [['', 'any'], ...Object.entries(DATA.statuses), ['excluded', 'excluded']],
    failure: [['', 'any'], ...Object.entries(DATA.failures)],
    // Only where there is something to choose.
    images: DATA.samples.some(lacksImage)
      ? [['', 'any'], ['missing', 'some cannot be seen'], ['there', 'all can be seen']]
      : [['', 'any']],
    sort: orders,
  };
}

function lacksImage(sample) {
  return sample.images.some((_, index) => problemOf(sample, index) !== null);
}

function isExcluded(outcome) {
  return outcome.hit === null;
}

function hasVerdict(sample, verdict) {
  const pair = verdict.split('>');
  if (pair.length === 2) {
    return sample.runs[pair[0]]?.hit === true && sample.runs[pair[1]]?.hit === false;
  }
  const hits = sample.runs.filter((one) => one !== null && !isExcluded(one)).map((one) => one.hit);
  if (verdict === 'differ') return hits.includes(true) && hits.includes(false);
  return hits.length > 0 && hits.every((hit) => hit === (verdict === 'right'));
}

/** Whether one outcome has all that is required of a single run. */
function hasAll(outcome, state, low, high) {
  if (state.status === 'excluded') {
    if (!isExcluded(outcome)) return false;
  } else if (state.status && outcome.status !== state.status) return false;
  if (state.failure && outcome.failure !== state.failure) return false;
  if (low === null && high === null) return true;
  return outcome.iou !== null && outcome.iou >= (low ?? 0) && outcome.iou <= (high ?? 1);
}

const haystacks = new Map();

/** All that the search looks at, in small letters; made when it is first needed. */
function haystack(sample) {
  let text = haystacks.get(sample);
  if (text === undefined) {
    const responses = sample.runs.map((one) =>
      one ? one.thinking + (one.answer ?? one.error ?? '') : '',
    );
    text = [sample.id, sample.instruction, ...responses].join('\n').toLowerCase();
    haystacks.set(sample, text);
  }
  return text;
}

function asNumber(text) {
  const value = Number.parseFloat(text);
  return Number.isFinite(value) ? value : null;
}

function matching(state) {
  const query = state.query.trim().toLowerCase();
  const [low, high] = [asNumber(state.low), asNumber(state.high)];
  const ofRun = state.run !== '' || state.status || state.failure || low !== null || high !== null;
  const kept = DATA.samples.filter((sample) => {
    if (state.task && sample.task !== state.task) return false;
    if (state.verdict && !hasVerdict(sample, state.verdict)) return false;
    if (state.images && lacksImage(sample) !== (state.images === 'missing')) return false;
    if (ofRun) {
      const outcomes = state.run === '' ? sample.runs : [sample.runs[state.run]];
      if (!outcomes.some((one) => one && hasAll(one, state, low, high))) return false;
    }
    return !query || haystack(sample).includes(query);
  });
  return inOrder(kept, state);
}

function inOrder(samples, state) {
  if (!state.sort) return samples;
  const ious = (sample) => {
    const outcomes = state.run === '' ? sample.runs : [sample.runs[state.run]];
    return outcomes.filter(Boolean).map((one) => one.iou ?? one.value ?? 0);
  };
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / (values.length || 1);
  const key = {
    worst: (sample) => mean(ious(sample)),
    best: (sample) => -mean(ious(sample)),
    spread: (sample) => {
      // The run is no matter here: a spread is between all of them.
      const all = sample.runs.filter(Boolean).map((one) => one.iou ?? one.value ?? 0);
      return Math.min(...all) - Math.max(...all);
    },
  }[state.sort];
  if (key === undefined) return samples;
  const keyed = samples.map((sample) => [key(sample), sample]);
  return keyed.sort(([a], [b]) => a - b).map(([, sample]) => sample);
}
