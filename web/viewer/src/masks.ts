// What one read's model outlined, as the server gives it: the masks by image, unpacked when an image is shown.
import { contour } from './contour';
import { ServerRefusal, type Slice } from './dicomweb';
import type { Place } from './overlay';

/** One thing that was outlined. */
export interface Segment {
  key: string; // in the page's addresses
  number: number; // in the masks
  name: string;
  words: string; // with the volume over all slices
  colour: [number, number, number];
  dash: string; // SVG's stroke-dasharray
}

/** All that one read's model outlined. */
export interface OutlinedRead {
  words: string; // whose they are
  address: string; // of the masks
  segments: Segment[];
}

interface LaidMask {
  segment: number;
  place: number; // of the image in `images`
  pixels: number;
  bits: string; // base64 of zlib of the bits
}

interface Answer {
  rows: number;
  columns: number;
  images: Place[];
  masks: LaidMask[];
}

export class Masks {
  readonly rows: number;
  readonly columns: number;
  private readonly images: readonly Place[];
  private readonly byImage = new Map<string, LaidMask[]>(); // an empty list: looked at, and nothing outlined
  private readonly series: ReadonlySet<string>;
  private readonly paths = new Map<LaidMask, Promise<string>>();

  constructor(answer: Answer) {
    this.rows = answer.rows;
    this.columns = answer.columns;
    this.images = answer.images;
    this.series = new Set(answer.images.map((image) => image.series_uid));
    for (const image of answer.images) this.byImage.set(keyOf(image.sop_uid, image.frame), []);
    for (const mask of answer.masks) {
      const image = answer.images[mask.place];
      if (image !== undefined) this.byImage.get(keyOf(image.sop_uid, image.frame))?.push(mask);
    }
  }

  /** Ask the server for them. Throws ServerRefusal. */
  static async of(address: string): Promise<Masks> {
    let response: Response;
    try {
      response = await fetch(address, { headers: { Accept: 'application/json', 'HX-Request': 'true' }, credentials: 'same-origin' });
    } catch {
      throw new ServerRefusal(0, '');
    }
    if (!response.ok) throw new ServerRefusal(response.status, '');
    return new Masks((await response.json()) as Answer);
  }

  /** The numbers of the segments on a slice; null where the model did not look at it. */
  on(slice: Slice): number[] | null {
    return this.at(slice)?.map(({ segment }) => segment) ?? null;
  }

  /** Whether the model looked at any image of the series. */
  knows(seriesUid: string): boolean {
    return this.series.has(seriesUid);
  }

  /** The line around a segment on a slice, in pixels of the frame; "" where there is none. */
  async pathOn(slice: Slice, segment: number): Promise<string> {
    const mask = this.at(slice)?.find((one) => one.segment === segment);
    if (mask === undefined) return '';
    let path = this.paths.get(mask);
    if (path === undefined) {
      path = unpacked(mask.bits).then((bits) => contour({ bits, columns: this.columns, rows: this.rows }));
      this.paths.set(mask, path);
    }
    return path;
  }

  /** The image on which a segment is largest. */
  largest(segment: number): Place | undefined {
    const all = [...this.byImage.values()].flat().filter((mask) => mask.segment === segment);
    const most = all.reduce<LaidMask | undefined>((best, mask) => (best === undefined || mask.pixels > best.pixels ? mask : best), undefined);
    return most === undefined ? undefined : this.images[most.place];
  }

  private at(slice: Slice): LaidMask[] | undefined {
    return this.byImage.get(keyOf(slice.sopUid, slice.frame));
  }
}

function keyOf(sopUid: string, frame: number | null): string {
  return `${sopUid}/${frame ?? 1}`;
}

async function unpacked(bits: string): Promise<Uint8Array> {
  const packed = Uint8Array.from(atob(bits), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
