// The samples: a page of cards, one sample opened in a dialog, the keys.

const PER_PAGE = 24;
const STRIP_MOST = 5;
const OPENED_MOST = 8;
// Widths and heights at which images are shown, in CSS pixels.
const IN_CARD = [360, 384];
const IN_STRIP = [58, 80];

const narrow = matchMedia('(max-width: 60rem)');

/** In the dialog: so that the responses are seen with them, beside or below. */
function openedSize(isAlone) {
  if (narrow.matches) return [Math.min(640, innerWidth - 60) * (isAlone ? 1 : 0.85), innerHeight * 0.33];
  return isAlone ? [800, Math.max(240, innerHeight - 220)] : [380, 480];
}

let state = { ...START };
let shown = []; // samples that match, in order

// --- what a run made of a sample, in words ------------------------------------------------------

function verdictOf(outcome) {
  if (isExcluded(outcome)) return ['·', 'excluded: the truth is invalid', 'plain'];
  return outcome.hit ? ['✓', 'right', 'good'] : ['✗', 'wrong', 'bad'];
}

function scoreInWords(outcome) {
  const parts = [];
  if (outcome.status !== 'ok') parts.push(DATA.statuses[outcome.status]);
  else if (outcome.iou !== null) parts.push(`IoU ${outcome.iou.toFixed(2)}`);
  else if (outcome.value !== null) parts.push(`score ${outcome.value.toFixed(2)}`);
  // Most classes of misses without a box are called as the status is.
  if (outcome.error) parts.push('request failed');
  const failure = outcome.failure && DATA.failures[outcome.failure];
  if (failure && !parts.includes(failure)) parts.push(failure);
  return parts.join(', ');
}

function badge(outcome) {
  const [sign, words, tone] = verdictOf(outcome);
  return make(
    'span',
    { class: `badge ${tone}` },
    make('span', { 'aria-hidden': 'true' }, `${sign} `),
    make('span', { class: 'spoken' }, `${words}, `),
    scoreInWords(outcome),
  );
}

// --- cards --------------------------------------------------------------------------------------

function card(sample, position) {
  const order = imagesByImportance(sample);
  const large = order.filter(
    (index, place) => place === 0 || (place < 2 && boxesOn(sample, index).length),
  );
  const small = sample.images.map((_, index) => index).filter((index) => !large.includes(index));
  const open = make('button', { type: 'button', class: 'open', id: `card-${position}` }, sample.id);
  open.addEventListener('click', () => openSample(position));
  const images = make(
    'div',
    { class: 'images' },
    large.map((index) => [
      drawImage(sample, index, ...IN_CARD),
      sample.images.length > 1
        ? make('span', { class: 'soft' }, `image ${index + 1} of ${sample.images.length}`)
        : null,
    ]),
  );
  // The button above does the same for the keyboard and for screen readers.
  images.addEventListener('click', () => openSample(position));
  return make(
    'li',
    {},
    make(
      'article',
      { 'aria-labelledby': `card-${position}` },
      make('h3', {}, open),
      make('p', { class: 'soft task' }, sample.task),
      images,
      large.length < sample.images.length
        ? make(
            'div',
            { class: 'strip' },
            small.slice(0, STRIP_MOST).map((index) => drawImage(sample, index, ...IN_STRIP)),
            small.length > STRIP_MOST
              ? make('span', { class: 'soft' }, `${small.length - STRIP_MOST} more`)
              : null,
          )
        : null,
      problems(sample),
      make('p', { class: 'instruction', dir: 'auto' }, sample.instruction),
      make(
        'ul',
        { class: 'outcomes' },
        sample.truth.length === 1 ? null : make('li', {}, chip(TRUTH), objects(sample)),
        sample.runs.map((outcome, run) =>
          make(
            'li',
            {},
            chip(DATA.runs[run]),
            outcome === null ? make('span', { class: 'soft' }, 'no response requested') : badge(outcome),
          ),
        ),
      ),
    ),
  );
}

/** The truth in words where no single box shows it. */
function objects(sample) {
  return sample.truth.length ? count(sample.truth.length, 'object') : 'There is no such object.';
}

/** In words why images of a sample cannot be seen, or null. */
function problems(sample) {
  const lines = sample.images
    .map((_, index) => [index, problemOf(sample, index)])
    .filter(([, problem]) => problem !== null);
  if (!lines.length) return null;
  if (lines.length === sample.images.length && lines.every(([, words]) => words === lines[0][1])) {
    return make('p', { class: 'problem' }, lines[0][1]);
  }
  return make(
    'p',
    { class: 'problem' },
    lines.map(([index, words]) => `Image ${index + 1}: ${words}`).join(' '),
  );
}

function pageCount() {
  return Math.max(1, Math.ceil(shown.length / PER_PAGE));
}

function pageNumber() {
  const page = Number.parseInt(state.page, 10);
  return Number.isFinite(page) ? Math.min(Math.max(1, page), pageCount()) : 1;
}

function showPage() {
  const page = pageNumber();
  state.page = String(page);
  const start = (page - 1) * PER_PAGE;
  const cards = shown.slice(start, start + PER_PAGE).map((one, i) => card(one, start + i));
  find('cards').replaceChildren(...cards);
  find('cards').setAttribute('start', start + 1);
  find('pager').hidden = pageCount() === 1;
  find('page-number').textContent = `Page ${page} of ${pageCount()}`;
  find('previous-page').disabled = page === 1;
  find('next-page').disabled = page === pageCount();
  writeAddress(state);
}

function turnPage(page) {
  state.page = String(page);
  showPage();
  find('samples').scrollIntoView();
}

/** Filter anew; from the first page unless the address said another. */
function update(keepPage = false) {
  shown = matching(state);
  if (!keepPage) state.page = '1';
  if (!shown.some((sample) => sample.id === state.open)) state.open = '';
  find('count').textContent = shown.length
    ? `${shown.length.toLocaleString('en')} of ${count(DATA.samples.length, 'sample')}`
    : DATA.samples.length
      ? 'No sample matches these filters.'
      : 'The runs have no samples.';
  showPage();
}

// --- one sample ---------------------------------------------------------------------------------

let current = -1; // position in `shown` of the sample that is open

function openSample(position) {
  const sample = shown[position];
  if (sample === undefined) return;
  current = position;
  state.open = sample.id;
  const page = Math.floor(position / PER_PAGE) + 1;
  if (page !== pageNumber()) {
    state.page = String(page);
    showPage();
  }
  writeAddress(state);
  find('sample-title').textContent = sample.id;
  find('sample-position').textContent =
    `${(position + 1).toLocaleString('en')} of ${shown.length.toLocaleString('en')}`;
  find('previous-sample').disabled = position === 0;
  find('next-sample').disabled = position === shown.length - 1;
  find('sample-body').replaceChildren(...details(sample));
  if (!find('sample').open) find('sample').showModal();
  find('sample').scrollTop = 0;
  find('sample-title').focus();
}

function figureOf(sample, index) {
  const [wide, high] = sizeOf(sample, index);
  const isKnown = DATA.images[sample.images[index]]?.size || sample.sizes;
  const size = isKnown ? ` · ${wide}×${high}` : '';
  const stretched = isStretched([wide, high]) ? ' · drawn stretched' : '';
  const problem = problemOf(sample, index);
  return make(
    'figure',
    {},
    drawImage(sample, index, ...openedSize(sample.images.length === 1)),
    make(
      'figcaption',
      {},
      `image ${index + 1} of ${sample.images.length}${size}${stretched}`,
      problem === null ? null : make('span', { class: 'problem' }, ` ${problem}`),
    ),
  );
}

/** All images, on a narrow screen side by side; of many, those without any box are folded. */
function figuresOf(sample) {
  const all = narrow.matches ? imagesByImportance(sample) : sample.images.map((_, index) => index);
  const framed = (indices) =>
    make(
      'div',
      // It scrolls where the images are wider than the screen.
      { class: 'figures', ...(all.length > 1 && { role: 'group', 'aria-label': 'Images', tabindex: 0 }) },
      indices.map((index) => figureOf(sample, index)),
    );
  if (all.length <= OPENED_MOST) return [framed(all)];
  const first = all.filter((index) => index === 0 || boxesOn(sample, index).length);
  const others = all.filter((index) => !first.includes(index));
  if (!others.length) return [framed(all)];
  return [
    framed(first),
    make(
      'details',
      { class: 'others' },
      make('summary', {}, `${count(others.length, 'image')} without a box`),
      framed(others),
    ),
  ];
}

function details(sample) {
  const truth = sample.truth.length
    ? sample.truth.map(
        ([image, ...box]) =>
          `${coordinates(box)}${sample.images.length > 1 ? ` on image ${image + 1}` : ''}`,
      )
    : [objects(sample)];
  const facts = [['task', sample.task], ...sample.facts];
  return [
    make(
      'p',
      // A long one scrolls.
      { class: 'instruction whole', dir: 'auto', tabindex: sample.instruction.length > 300 ? 0 : null },
      sample.instruction,
    ),
    make('div', { class: 'pictures' }, figuresOf(sample)),
    make(
      'div',
      { class: 'answers' },
      make('p', { class: 'truth' }, chip(TRUTH), ` Truth: ${truth.join('; ')}`),
      sample.runs.map((outcome, run) => answerOf(sample, outcome, run)),
      make(
        'details',
        {},
        make('summary', {}, 'About this sample'),
        make(
          'dl',
          { class: 'facts' },
          facts.flatMap(([name, value]) => [make('dt', {}, name), make('dd', { dir: 'auto' }, value)]),
        ),
      ),
    ),
  ];
}

function answerOf(sample, outcome, run) {
  const heading = make('h3', {}, chip(DATA.runs[run]), ` ${DATA.runs[run].label} `);
  if (outcome === null) {
    return make('section', { class: 'answer' }, heading, make('p', {}, 'This run did not get this sample.'));
  }
  heading.append(badge(outcome));
  const boxes = outcome.boxes.map(([image, ...box]) => {
    const where = sample.images.length > 1 && image >= 0 ? ` on image ${image + 1}` : '';
    return coordinates(box) + where;
  });
  const lines = [];
  if (boxes.length) lines.push(`${boxes.length === 1 ? 'Box' : 'Boxes'} ${boxes.join('; ')}.`);
  if ('named' in outcome && outcome.named === null && boxes.length) {
    lines.push('The response names no image; the box is drawn on that of the truth.');
  }
  lines.push(...(outcome.hints ?? []));
  return make(
    'section',
    { class: 'answer' },
    heading,
    lines.length ? make('p', { class: 'soft' }, lines.join(' ')) : null,
    outcome.thinking
      ? make(
          'details',
          { class: 'thinking' },
          make('summary', {}, `Thinking (${count(outcome.thinking.length, 'character')})`),
          make('pre', { dir: 'auto' }, outcome.thinking),
        )
      : null,
    outcome.answer === null
      ? make(
          'p',
          { dir: 'auto' },
          outcome.error ? `The request failed: ${outcome.error}` : 'The model gave no response.',
        )
      : outcome.answer.trim()
        ? make('pre', { dir: 'auto' }, outcome.answer)
        : make(
            'p',
            { class: 'soft' },
            outcome.thinking ? 'Nothing follows the thinking.' : 'The response is empty.',
          ),
  );
}

/** After the dialog has closed: back to the card that was opened last. */
function sampleClosed() {
  state.open = '';
  writeAddress(state);
  focusCard(current);
}

// --- keys ---------------------------------------------------------------------------------------

function focusCard(position) {
  if (position < 0 || position >= shown.length) return;
  const page = Math.floor(position / PER_PAGE) + 1;
  if (page !== pageNumber()) {
    state.page = String(page);
    showPage();
  }
  find(`card-${position}`).focus();
  find(`card-${position}`).closest('article').scrollIntoView({ block: 'nearest' });
}

/** Position of the card that has the focus; just before the page's first where none has. */
function focusedCard() {
  const id = document.activeElement?.closest('#cards article')?.querySelector('.open').id;
  return id ? Number(id.slice('card-'.length)) : null;
}

function step(by) {
  if (find('sample').open) {
    openSample(current + by);
    return;
  }
  const focused = focusedCard();
  focusCard(focused === null ? (pageNumber() - 1) * PER_PAGE : focused + by);
}

const KEYS = {
  j: () => step(1),
  ArrowRight: () => step(1),
  k: () => step(-1),
  ArrowLeft: () => step(-1),
  n: () => pageNumber() < pageCount() && turnPage(pageNumber() + 1),
  p: () => pageNumber() > 1 && turnPage(pageNumber() - 1),
  '/': () => find('f-query').focus(),
  '?': () => find('help').showModal(),
};

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !find('keys-on').checked) return;
  if (event.target.closest('input, select, textarea')) return;
  const isArrow = event.key.startsWith('Arrow');
  // Elsewhere on the page, and in a wide table, arrows scroll.
  if (isArrow && !event.target.closest('#cards, #sample')) return;
  if (find('help').open || (find('sample').open && '/?np'.includes(event.key))) return;
  const action = KEYS[event.key];
  if (action === undefined) return;
  event.preventDefault();
  action();
}

// --- start --------------------------------------------------------------------------------------

const form = find('filters');

function readForm() {
  for (const field of form.elements) {
    if (field.name in START) state[field.name] = field.value;
  }
}

function writeForm() {
  for (const field of form.elements) {
    if (field.name in START) field.value = state[field.name];
    // A choice that this page does not have, or no number: the field has not taken it.
    if (field.tagName === 'SELECT' && field.selectedIndex < 0) field.value = '';
    if (field.name in START) state[field.name] = field.value;
  }
}

for (const [name, options] of Object.entries(choices())) {
  find(`f-${name}`).append(...options.map(([value, words]) => make('option', { value }, words)));
}
find('images-field').hidden = find('f-images').length === 1;
find('box-keys').append(
  make('li', {}, draw('svg', { class: 'key', width: 28, height: 10, 'aria-hidden': 'true' },
    draw('path', { class: 'box', d: 'M0 5H28', stroke: TRUTH_COLOUR })), ' ', make('b', {}, 'T'), ' truth'),
  ...DATA.runs.map((run) =>
    make('li', {}, draw('svg', { class: 'key', width: 28, height: 10, 'aria-hidden': 'true' },
      draw('path', { class: 'box', d: 'M0 5H28', stroke: run.colour, 'stroke-dasharray': run.dashes })),
    ' ', make('b', {}, run.letter), ` ${run.label}`),
  ),
);

let waiting = 0;
form.addEventListener('input', (event) => {
  clearTimeout(waiting);
  // Only while words are typed: every other change is shown at once.
  waiting = setTimeout(
    () => {
      readForm();
      update();
    },
    event.target.name === 'query' ? 120 : 0,
  );
});
form.addEventListener('submit', (event) => event.preventDefault());
form.addEventListener('reset', () => {
  state = { ...START };
  setTimeout(() => update()); // when the fields are empty
});
for (const [id, by] of [['previous-page', -1], ['next-page', 1]]) {
  find(id).addEventListener('click', () => {
    turnPage(pageNumber() + by);
    // The button stands below the cards, and is disabled on the last page.
    focusCard((pageNumber() - 1) * PER_PAGE);
  });
}
find('previous-sample').addEventListener('click', () => openSample(current - 1));
find('next-sample').addEventListener('click', () => openSample(current + 1));
find('close-sample').addEventListener('click', () => find('sample').close());
find('sample').addEventListener('close', sampleClosed);
find('show-help').addEventListener('click', () => find('help').showModal());
find('close-help').addEventListener('click', () => find('help').close());
find('keys-on').checked = stored('univg-report-keys') !== 'off';
find('keys-on').addEventListener('change', (event) => {
  store('univg-report-keys', event.target.checked ? 'on' : 'off');
});
document.addEventListener('keydown', pressed);
addEventListener('hashchange', () => {
  // The links at the top go to a part of the page; their address is no filter.
  if (/^#(summary|charts|samples|main)$/.test(location.hash)) return;
  restore();
});

/** Show what the address says; what this page does not know of it is passed over. */
function restore() {
  state = readAddress();
  writeForm();
  update(true);
  if (state.open) openSample(shown.findIndex((sample) => sample.id === state.open));
  else if (find('sample').open) find('sample').close();
}

restore();
