// An image of a sample with its boxes. Truth is blue and solid with a T; a run's boxes are dashed,
// in its colour, with its letter.

const { gallery, samples } = JSON.parse(find('data').textContent);
const DATA = { ...gallery, samples };
const TRUTH_COLOUR = '#0072b2';
const LABEL_HEIGHT = 16;
const LONGEST_RATIO = 8; // of the longer to the shorter side, as drawn

/** "from 10 % to 30 % across, 20 % to 40 % down" */
function placeInWords([x1, y1, x2, y2]) {
  if ([x1, y1, x2, y2].includes(null)) return 'with coordinates that are no numbers';
  const percent = (value) => `${Math.round(100 * value)} %`;
  return `from ${percent(x1)} to ${percent(x2)} across, ${percent(y1)} to ${percent(y2)} down`;
}

function coordinates(box) {
  return `[${box.map((value) => (value === null ? '?' : value)).join(', ')}]`;
}

/** What to draw on the image at `index`: [{letter, words, box, colour, dashes}], truth first. */
function boxesOn(sample, index) {
  const several = sample.truth.length > 1;
  const boxes = sample.truth
    .map(([image, ...box], number) => ({
      image,
      box,
      letter: several ? `T${number + 1}` : 'T',
      words: several ? `truth ${number + 1}` : 'truth',
      colour: TRUTH_COLOUR,
      dashes: null,
    }))
    .concat(
      ...sample.runs.map((outcome, position) => {
        if (outcome === null) return [];
        const run = DATA.runs[position];
        return outcome.boxes.map(([image, ...box], number) => ({
          image,
          box,
          letter: outcome.boxes.length > 1 ? `${run.letter}${number + 1}` : run.letter,
          words: `run ${run.letter}`,
          colour: run.colour,
          dashes: run.dashes,
        }));
      }),
    );
  return boxes.filter((one) => one.image === index);
}

/** Images of a sample by importance: those of the truth, those with boxes, then the others. */
function imagesByImportance(sample) {
  const weight = (index) => {
    if (sample.truth.some(([image]) => image === index)) return 0;
    return boxesOn(sample, index).length ? 1 : 2;
  };
  return sample.images
    .map((_, index) => index)
    .sort((a, b) => weight(a) - weight(b) || a - b);
}

function sizeOf(sample, index) {
  const image = DATA.images[sample.images[index]];
  return image?.size ?? sample.sizes?.[index] ?? [4, 3];
}

/** Height over width as drawn: a strip of a few pixels would show no boxes, so it is stretched. */
function ratioOf([wide, high]) {
  return Math.min(LONGEST_RATIO, Math.max(1 / LONGEST_RATIO, high / wide));
}

function isStretched([wide, high]) {
  return ratioOf([wide, high]) !== high / wide;
}

/** Why the image at `index` cannot be seen, or null. */
function problemOf(sample, index) {
  const number = sample.images[index];
  if (number < 0) return 'This image was left out of the page.';
  return DATA.images[number].problem ?? null;
}

/** The thumbnail's address; the file's bytes stand as text in a block of the page. */
function thumbnail(sample, index) {
  const block = find(`image-${sample.images[index]}`);
  return block === null ? null : `data:image/webp;base64,${block.textContent}`;
}

/**
 * An image with its boxes as SVG.
 *
 * It is shown at most about `widest` by `highest` CSS pixels large: lines and labels have a fixed
 * size in that, whatever the image's own size is.
 */
function drawImage(sample, index, widest, highest) {
  const ratio = ratioOf(sizeOf(sample, index));
  const width = Math.min(widest, highest / ratio);
  const height = width * ratio;
  const boxes = boxesOn(sample, index);
  const problem = problemOf(sample, index);
  const name = `Image ${index + 1} of ${sample.images.length}`;
  const spoken = [
    name,
    ...boxes.map((one) => `${one.words} ${placeInWords(one.box)}`),
    boxes.length ? null : 'no boxes',
    problem && 'the image itself cannot be seen',
  ].filter(Boolean);
  const svg = draw('svg', {
    viewBox: `0 0 ${width.toFixed(1)} ${height.toFixed(1)}`,
    width: width.toFixed(1),
    height: height.toFixed(1),
    role: 'img',
    'aria-label': spoken.join('; '),
  });
  const source = thumbnail(sample, index);
  if (source === null) {
    svg.append(
      draw('rect', { class: 'no-image', width, height }),
      draw(
        'text',
        { class: 'no-image-text', x: width / 2, y: height - 10, 'text-anchor': 'middle' },
        'no image',
      ),
    );
  } else {
    svg.append(draw('image', { href: source, width, height, preserveAspectRatio: 'none' }));
  }
  const place = (box) => {
    const [x1, y1, x2, y2] = box.map((value) => Math.min(1, Math.max(0, value)));
    return [
      Math.min(x1, x2) * width,
      Math.min(y1, y2) * height,
      Math.max(x1, x2) * width,
      Math.max(y1, y2) * height,
    ];
  };
  const drawable = boxes.filter((one) => !one.box.includes(null));
  const paths = drawable.map(({ box }) => {
    const [x1, y1, x2, y2] = place(box).map((value) => value.toFixed(1));
    return `M${x1} ${y1}H${x2}V${y2}H${x1}Z`;
  });
  // A light rim keeps a line visible on any image. The rims come first, so that where boxes are the
  // same the solid line of the truth shows between the dashes.
  svg.append(
    ...paths.map((d) => draw('path', { class: 'rim', d })),
    ...drawable.map(({ colour, dashes }, i) =>
      draw('path', { class: 'box', d: paths[i], stroke: colour, 'stroke-dasharray': dashes }),
    ),
  );
  placeLabels(svg, drawable, place, width, height);
  return svg;
}

/** Letters in the upper left corners of their boxes, moved aside where they would meet. */
function placeLabels(svg, boxes, place, width, height) {
  const taken = [];
  for (const { box, letter, colour } of boxes) {
    const [left, top] = place(box);
    const wide = 8 + 8 * letter.length;
    let x = Math.min(left, width - wide);
    let y = top >= LABEL_HEIGHT ? top - LABEL_HEIGHT : top;
    y = Math.max(0, Math.min(y, height - LABEL_HEIGHT));
    const meets = () =>
      taken.find(
        (other) =>
          x < other.x + other.wide && other.x < x + wide && Math.abs(y - other.y) < LABEL_HEIGHT,
      );
    for (let other = meets(); other; other = meets()) {
      if (other.x + other.wide + wide <= width) x = other.x + other.wide;
      else if (y + 2 * LABEL_HEIGHT <= height) [x, y] = [Math.min(left, width - wide), y + LABEL_HEIGHT];
      else break;
    }
    taken.push({ x, y, wide });
    const isTruth = colour === TRUTH_COLOUR;
    svg.append(
      draw('rect', { class: 'label', x, y, width: wide, height: LABEL_HEIGHT, fill: colour }),
      draw(
        'text',
        {
          class: isTruth ? 'label-truth' : 'label-run',
          x: x + wide / 2,
          y: y + 12,
          'text-anchor': 'middle',
        },
        letter,
      ),
    );
  }
}

/** The T of the truth. */
const TRUTH = { letter: 'T', colour: TRUTH_COLOUR, words: 'Truth' };

/** A run's letter on its colour, as in the charts and on the boxes; or the truth's. */
function chip({ letter, colour, words = `Run ${letter}` }) {
  const wide = 10 + 8 * letter.length;
  return draw(
    'svg',
    {
      class: words === TRUTH.words ? 'chip truth' : 'chip',
      viewBox: `0 0 ${wide} 18`,
      width: wide,
      height: 18,
      role: 'img',
      'aria-label': words,
    },
    draw('rect', { width: wide, height: 18, rx: 3, fill: colour }),
    draw('text', { x: wide / 2, y: 13.5, 'text-anchor': 'middle' }, letter),
  );
}
