// What is laid over the picture: the map of where the model looked, and what a person marked. Nothing here changes a pixel
// of the image: the map is off until it is asked for, and a mark is a line. What the model outlined, `outlines.ts` draws.
import type { Slice } from './dicomweb';
import { make, svg, type Layout } from './layout';
import type { Box } from './mark';
import type { OutlinedRead } from './masks';
import { pictureOf, strip, type LaidMap } from './saliency';

/** An image as the page and the server name it. */
export interface Place {
  series_uid: string;
  sop_uid: string;
  frame: number | null;
}

export interface PlacedMap extends LaidMap {
  image: Place;
}

export interface Region extends Box {
  image: Place;
  words: string;
}

/** What the server answers for a study. */
export interface Overlays {
  key_images: Place[];
  maps: PlacedMap[];
  regions: Region[];
  outlines: OutlinedRead[];
}

/** Three corners of the frame on the stage, in CSS pixels, and the frame's size in pixels of its own. */
export interface Frame {
  origin: [number, number];
  right: [number, number]; // the far end of the first row
  bottom: [number, number]; // the far end of the first column
  columns: number;
  rows: number;
}

const EDGE = 4; // CSS pixels that words keep from what they stand beside
const NO_MAP = 'There is no map of this image. The key images have one.';

export class Overlay {
  private overlays: Overlays = { key_images: [], maps: [], regions: [], outlines: [] };
  private pending: Region | null = null;
  private slice: Slice | null = null; // the image that is drawn; null while there is none
  private mapShown = false;
  private regionsShown = true;
  private readonly pictures = new Map<PlacedMap, HTMLCanvasElement | null>();

  constructor(
    private readonly layout: Layout,
    private readonly frameOf: () => Frame | null,
  ) {
    strip(layout.legendStrip);
    layout.map.addEventListener('click', () => this.toggleMap());
    layout.marks.addEventListener('click', () => this.toggleRegions());
    layout.opacity.addEventListener('input', () => (this.mapShown ? this.draw() : this.toggleMap())); // who sets it wants to see it
    layout.models.addEventListener('change', () => this.draw());
  }

  /** Lay these over the images from now on. */
  set(overlays: Overlays): void {
    this.overlays = overlays;
    this.pictures.clear();
    const { layout } = this;
    const models = [...new Set(overlays.maps.map(({ model }) => model))];
    const chosen = layout.models.value;
    layout.models.replaceChildren(...models.map((model) => make('option', '', { value: model }, model)));
    layout.models.value = models.includes(chosen) ? chosen : (models[0] ?? '');
    layout.models.hidden = models.length < 2;
    layout.map.hidden = layout.opacity.hidden = models.length === 0;
    layout.marks.hidden = overlays.regions.length === 0;
    this.draw();
  }

  /** A region that is marked and not signed yet; null takes it away. */
  propose(region: Region | null): void {
    this.pending = region;
    this.draw();
  }

  /** The image that is drawn now; null hides everything until there is one. */
  show(slice: Slice | null): void {
    this.slice = slice;
    this.draw();
  }

  toggleMap(): void {
    if (this.layout.map.hidden) return;
    this.mapShown = !this.mapShown;
    this.draw();
  }

  toggleRegions(): void {
    if (this.layout.marks.hidden) return;
    this.regionsShown = !this.regionsShown;
    this.draw();
  }

  /** Draw all of it again, where the image lies now. */
  draw(): void {
    const frame = this.slice === null ? null : this.frameOf();
    const { layout } = this;
    layout.map.setAttribute('aria-pressed', String(this.mapShown));
    layout.marks.setAttribute('aria-pressed', String(this.regionsShown));
    this.drawMap(frame);
    this.drawRegions(frame);
  }

  private drawMap(frame: Frame | null): void {
    const { layout } = this;
    const canvas = fitted(layout);
    const context = canvas.getContext('2d');
    context?.clearRect(0, 0, canvas.width, canvas.height);
    const wanted = this.mapShown && !layout.map.hidden && this.slice !== null;
    layout.legend.hidden = !wanted;
    if (!wanted || this.slice === null) return;
    const { slice } = this;
    const map = this.overlays.maps.find(({ image, model }) => model === layout.models.value && sameImage(slice, image));
    layout.legendWords.textContent = map?.words ?? NO_MAP;
    layout.legendStrip.hidden = map === undefined || map.levels === '';
    if (map === undefined || frame === null || context === null) return;
    const picture = this.pictureOf(map, frame);
    if (picture === null) return;
    const ratio = canvas.width / Math.max(1, layout.viewport.clientWidth);
    const along = (to: [number, number], axis: 0 | 1, size: number): number => ((to[axis] - frame.origin[axis]) * ratio) / size;
    context.setTransform(
      along(frame.right, 0, picture.width),
      along(frame.right, 1, picture.width),
      along(frame.bottom, 0, picture.height),
      along(frame.bottom, 1, picture.height),
      frame.origin[0] * ratio,
      frame.origin[1] * ratio,
    );
    context.globalAlpha = Number(layout.opacity.value) / 100;
    context.imageSmoothingQuality = 'high';
    context.drawImage(picture, 0, 0);
    context.resetTransform();
  }

  private pictureOf(map: PlacedMap, frame: Frame): HTMLCanvasElement | null {
    let picture = this.pictures.get(map);
    if (picture === undefined) {
      picture = pictureOf(map, frame.columns, frame.rows);
      this.pictures.set(map, picture);
    }
    return picture;
  }

  private drawRegions(frame: Frame | null): void {
    const { outlines, notes } = this.layout;
    outlines.replaceChildren();
    notes.replaceChildren();
    const { slice } = this;
    if (frame === null || slice === null) return;
    const signed = this.regionsShown ? this.overlays.regions : [];
    const all = this.pending === null ? signed : [...signed, this.pending];
    for (const region of all.filter(({ image }) => sameImage(slice, image))) {
      const corners = cornersOf(region, frame);
      const points = corners.map((corner) => corner.join(',')).join(' ');
      outlines.append(svg('polygon', { points, class: region === this.pending ? 'wv-region wv-proposed' : 'wv-region' }));
      const note = make('span', 'wv-note', {}, region.words);
      notes.append(note);
      const most = notes.clientWidth - note.offsetWidth - EDGE;
      note.style.left = `${Math.max(EDGE, Math.min(most, ...corners.map(([x]) => x)))}px`;
      note.style.top = `${Math.max(...corners.map(([, y]) => y)) + EDGE}px`;
    }
  }
}

/** Whether the slice is the image that is named. */
export function sameImage(slice: Slice, image: Place): boolean {
  return slice.sopUid === image.sop_uid && slice.frame === (image.frame ?? 1);
}

/** The overlays of a study; nothing where the server has none to give, for the images are shown all the same. */
export async function overlaysOf(address: string | undefined): Promise<Overlays | null> {
  if (address === undefined) return null;
  try {
    const response = await fetch(address, { headers: { Accept: 'application/json', 'HX-Request': 'true' }, credentials: 'same-origin' });
    return response.ok ? ((await response.json()) as Overlays) : null;
  } catch (error) {
    console.warn(error);
    return null;
  }
}

/** The map's layer, as large as the viewport, in the screen's own pixels. */
function fitted({ mapLayer: canvas, viewport }: Layout): HTMLCanvasElement {
  const width = Math.round(viewport.clientWidth * devicePixelRatio);
  const height = Math.round(viewport.clientHeight * devicePixelRatio);
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  return canvas;
}

function cornersOf(region: Box, frame: Frame): [number, number][] {
  const at = (column: number, row: number): [number, number] => {
    const [x, y] = [0, 1].map((axis) => {
      const [origin, right, bottom] = [frame.origin[axis] ?? 0, frame.right[axis] ?? 0, frame.bottom[axis] ?? 0];
      return origin + ((right - origin) * column) / frame.columns + ((bottom - origin) * row) / frame.rows;
    });
    return [x ?? 0, y ?? 0];
  };
  const [far, low] = [region.left + region.width, region.top + region.height];
  return [at(region.left, region.top), at(far, region.top), at(far, low), at(region.left, low)];
}
