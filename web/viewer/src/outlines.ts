// What a model outlined, drawn over the picture: a line around it, filled only as far as somebody asks. Off until asked for.
import { inWords, type Slice } from './dicomweb';
import { make, svg, type Layout } from './layout';
import { Masks, type OutlinedRead, type Segment } from './masks';
import type { Frame, Place } from './overlay';

/** A segment with the masks that it is part of. */
interface Drawn {
  read: OutlinedRead;
  segment: Segment;
  entry: HTMLLabelElement;
  box: HTMLInputElement;
}

const DARK = 90; // luma, of 255, below which a line needs a bright rim to be seen on a dark image

export class Outlines {
  private reads: OutlinedRead[] = [];
  private drawn: Drawn[] = [];
  private masks = new Map<OutlinedRead, Masks>();
  private loading: Promise<void> | null = null;
  private trouble = '';
  private shown = false;
  private slice: Slice | null = null; // the image that is drawn; null while there is none
  private slices: readonly Slice[] = []; // of the series that is shown
  private readonly group = svg('g', {});
  private turn = 0; // of drawing: what was asked for before the last one is not drawn

  constructor(
    private readonly layout: Layout,
    private readonly frameOf: () => Frame | null,
  ) {
    layout.outlineLayer.append(this.group);
    layout.outline.addEventListener('click', () => this.toggle());
    layout.fill.addEventListener('input', () => {
      this.fill();
      if (!this.shown) this.toggle(); // who sets how it looks wants to see it
    });
    this.fill();
  }

  /** Lay these over the images from now on; what is the same as before stays as it is. */
  set(reads: OutlinedRead[]): void {
    if (JSON.stringify(reads) === JSON.stringify(this.reads)) return;
    const hidden = new Set(this.drawn.filter(({ box }) => !box.checked).map(({ segment }) => segment.key));
    this.reads = reads;
    this.masks = new Map();
    this.loading = null;
    this.trouble = '';
    this.drawn = reads.flatMap((read) => read.segments.map((segment) => this.entryOf(read, segment, !hidden.has(segment.key))));
    const { legendList, outline, outlined } = this.layout;
    legendList.replaceChildren(...this.drawn.map(({ entry }) => make('li', '', {}, entry)));
    outlined.hidden = outline.hidden = reads.length === 0;
    if (reads.length === 0) this.shown = false;
    if (this.shown) void this.load();
    this.refresh();
  }

  /** The image that is drawn now, and its series; null hides everything until there is one. */
  show(slice: Slice | null, slices: readonly Slice[]): void {
    this.slice = slice;
    this.slices = slices;
    this.refresh();
  }

  toggle(): void {
    if (this.reads.length === 0) return;
    this.shown = !this.shown;
    if (this.shown) void this.load();
    this.refresh();
  }

  /** Have a segment seen, and tell on which image it is largest; undefined where there is no such segment. */
  async find(key: string): Promise<Place | undefined> {
    const found = this.drawn.find(({ segment }) => segment.key === key);
    if (found === undefined) return undefined;
    found.box.checked = true;
    this.shown = true;
    await this.load();
    this.refresh();
    return this.masks.get(found.read)?.largest(found.segment.number);
  }

  /** Put the lines where the image lies now. */
  place(): void {
    const frame = this.slice === null ? null : this.frameOf();
    this.group.setAttribute('visibility', frame === null ? 'hidden' : 'visible');
    if (frame === null) return;
    const along = (to: [number, number], size: number): string => [0, 1].map((axis) => ((to[axis] ?? 0) - (frame.origin[axis] ?? 0)) / size).join(' ');
    this.group.setAttribute('transform', `matrix(${along(frame.right, frame.columns)} ${along(frame.bottom, frame.rows)} ${frame.origin.join(' ')})`);
  }

  private load(): Promise<void> {
    this.loading ??= this.ask(this.reads);
    return this.loading;
  }

  private async ask(reads: OutlinedRead[]): Promise<void> {
    try {
      const masks = await Promise.all(reads.map((read) => Masks.of(read.address)));
      if (reads !== this.reads) return; // the finding is another one meanwhile
      this.masks = new Map(reads.map((read, index) => [read, masks[index] as Masks]));
      this.trouble = '';
    } catch (error) {
      console.error(error);
      if (reads !== this.reads) return;
      this.trouble = `The outlines cannot be shown. ${inWords(error)}`;
      this.loading = null; // switched on again, they are asked for again
    }
    this.refresh();
  }

  private refresh(): void {
    this.turn += 1;
    const { layout } = this;
    layout.outline.setAttribute('aria-pressed', String(this.shown));
    this.group.replaceChildren();
    const here = this.shown ? this.onThisSlice() : [];
    for (const one of this.drawn) one.entry.classList.toggle('wv-here', here.includes(one));
    this.say(here);
    void this.draw(here.filter(({ box }) => box.checked), this.turn);
  }

  /** What is outlined on the image that is drawn, hidden or not. */
  private onThisSlice(): Drawn[] {
    const { slice } = this;
    if (slice === null) return [];
    return this.drawn.filter(({ read, segment }) => this.masks.get(read)?.on(slice)?.includes(segment.number));
  }

  private async draw(wanted: Drawn[], turn: number): Promise<void> {
    const { slice } = this;
    const frame = this.frameOf();
    if (slice === null || frame === null) return;
    try {
      const paths = await Promise.all(wanted.map(({ read, segment }) => this.masks.get(read)?.pathOn(slice, segment.number) ?? ''));
      if (turn !== this.turn) return;
      // The first segment last, so that it lies on top, as in the other objects of the result.
      const lines = wanted.map(({ segment }, index) => line(segment, paths[index] ?? '')).reverse();
      this.group.replaceChildren(...lines.flat());
      this.place();
    } catch (error) {
      console.error(error);
      if (turn !== this.turn) return;
      this.trouble = 'The outlines arrived, but could not be drawn.';
      this.say([]);
    }
  }

  private say(here: Drawn[]): void {
    const { outlineWords } = this.layout;
    outlineWords.hidden = !this.shown;
    const words = this.shown && this.slice !== null ? this.wordsFor(this.slice, here) : '';
    if (outlineWords.textContent !== words) outlineWords.textContent = words;
    // What is drawn needs no words over the picture, but for those who do not see it.
    outlineWords.classList.toggle('wv-unseen', words === '' || (here.length > 0 && this.trouble === ''));
  }

  private wordsFor(slice: Slice, here: Drawn[]): string {
    if (this.trouble !== '') return this.trouble;
    const masks = [...this.masks.values()];
    if (masks.length === 0) return 'Loading the outlines …';
    if (here.length > 0) return `Outlined on this slice: ${here.map(({ segment }) => segment.name).join(', ')}.`;
    if (!masks.some((one) => one.knows(slice.seriesUid))) return 'Nothing is outlined in this series: the model looked at another one.';
    const nothing = masks.some((one) => one.on(slice) !== null) ? 'Nothing is outlined on this slice' : 'The model did not look at this slice';
    const slices = this.slices.flatMap((one, index) => (masks.some((all) => (all.on(one)?.length ?? 0) > 0) ? [index + 1] : []));
    return slices.length === 0 ? `${nothing}.` : `${nothing}. Outlined: slice${slices.length === 1 ? '' : 's'} ${ranges(slices)}.`;
  }

  private fill(): void {
    const { fill, outlineLayer } = this.layout;
    const share = Number(fill.value);
    outlineLayer.setAttribute('fill-opacity', String(share / 100));
    fill.setAttribute('aria-valuetext', share === 0 ? 'line only' : `${share} percent`);
  }

  private entryOf(read: OutlinedRead, segment: Segment, checked: boolean): Drawn {
    const box = make('input', '', { type: 'checkbox' });
    box.checked = checked;
    box.addEventListener('change', () => (box.checked && !this.shown ? this.toggle() : this.refresh()));
    const entry = make('label', 'wv-entry', {}, box, swatch(segment), make('span', '', {}, segment.words));
    if (this.reads.length > 1) entry.append(make('span', 'wv-muted', {}, read.words));
    return { read, segment, entry, box };
  }
}

/** A segment on a slice: the area, a rim that parts the line from the image, and the line. */
function line(segment: Segment, path: string): SVGElement[] {
  const colour = `rgb(${segment.colour.join(' ')})`;
  const [red, green, blue] = segment.colour;
  const rim = 0.299 * red + 0.587 * green + 0.114 * blue < DARK ? '#fff' : '#000';
  const drawn = { d: path, 'fill-rule': 'evenodd', 'vector-effect': 'non-scaling-stroke', 'data-segment': segment.key };
  return [
    svg('path', { ...drawn, class: 'wv-rim', fill: colour, stroke: rim }),
    svg('path', { ...drawn, class: 'wv-line', fill: 'none', stroke: colour, 'stroke-dasharray': segment.dash || 'none' }),
  ];
}

/** The line as it is drawn, on the picture's black. */
function swatch(segment: Segment): SVGElement {
  const stroke = { stroke: `rgb(${segment.colour.join(' ')})`, 'stroke-dasharray': segment.dash || 'none' };
  const picture = svg('svg', { viewBox: '0 0 32 12', class: 'wv-swatch', 'aria-hidden': 'true' });
  picture.append(svg('rect', { width: '32', height: '12', rx: '2' }), svg('path', { d: 'M2 6h28', ...stroke }));
  return picture;
}

/** Numbers in rising order, runs of them as "9–17". */
function ranges(numbers: readonly number[]): string {
  const runs: [number, number][] = [];
  for (const number of numbers) {
    const last = runs.at(-1);
    if (last !== undefined && last[1] === number - 1) last[1] = number;
    else runs.push([number, number]);
  }
  return runs.map(([first, last]) => (first === last ? `${first}` : `${first}–${last}`)).join(', ');
}
