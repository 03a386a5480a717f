// Marking a rectangle on the picture: asked for by the page, answered with pixels of the frame (PS3.3 C.18.6.1.2: the top
// left corner of the first pixel is 0, 0).
import { make } from './layout';

/** Where a point of the stage lies on the image, in pixels of the frame; null while there is no image. */
export type PixelAt = (x: number, y: number) => { column: number; row: number; columns: number; rows: number } | null;

export interface Box {
  left: number;
  top: number;
  width: number;
  height: number;
}

const LEAST = 2; // pixels of the frame; less is a click

export class Marker {
  private readonly layer = make('div', 'wv-mark', { role: 'application', tabindex: '0', 'aria-label': 'Mark a region: drag. Escape ends it.' });
  private readonly box = make('div', 'wv-mark-box');
  private from: { x: number; y: number } | null = null;

  constructor(
    private readonly stage: HTMLElement,
    private readonly pixelAt: PixelAt,
    private readonly marked: (box: Box | null) => void,
  ) {
    this.layer.append(this.box);
    this.layer.hidden = true;
    this.box.hidden = true;
    stage.append(this.layer);
    this.layer.addEventListener('pointerdown', (event) => this.begin(event));
    this.layer.addEventListener('pointermove', (event) => this.draw(event));
    this.layer.addEventListener('pointerup', (event) => this.end(event));
    this.layer.addEventListener('pointercancel', () => this.stop(null));
    this.layer.addEventListener('keydown', (event) => {
      event.stopPropagation(); // the slice must not change under the rectangle
      if (event.key === 'Escape') this.stop(null);
    });
  }

  /** Let the next drag on the picture mark a rectangle. */
  start(): void {
    this.layer.hidden = false;
    this.stage.scrollIntoView({ block: 'nearest' });
    this.layer.focus({ preventScroll: true });
  }

  private begin(event: PointerEvent): void {
    event.preventDefault();
    this.layer.setPointerCapture(event.pointerId);
    this.from = this.place(event);
  }

  private draw(event: PointerEvent): void {
    if (this.from === null) return;
    const to = this.place(event);
    const { style } = this.box;
    style.left = `${Math.min(this.from.x, to.x)}px`;
    style.top = `${Math.min(this.from.y, to.y)}px`;
    style.width = `${Math.abs(to.x - this.from.x)}px`;
    style.height = `${Math.abs(to.y - this.from.y)}px`;
    this.box.hidden = false;
  }

  private end(event: PointerEvent): void {
    if (this.from === null) return;
    const to = this.place(event);
    const one = this.pixelAt(this.from.x, this.from.y);
    const other = this.pixelAt(to.x, to.y);
    this.from = null;
    if (one === null || other === null) {
      this.stop(null);
      return;
    }
    const [left, right] = span(one.column, other.column, one.columns);
    const [top, bottom] = span(one.row, other.row, one.rows);
    const box = { left, top, width: round(right - left), height: round(bottom - top) };
    if (box.width >= LEAST && box.height >= LEAST) this.stop(box);
    else this.box.hidden = true; // a click: the drag is still to come
  }

  private stop(box: Box | null): void {
    this.from = null;
    this.box.hidden = true;
    this.layer.hidden = true;
    this.marked(box);
  }

  private place(event: PointerEvent): { x: number; y: number } {
    const edge = this.stage.getBoundingClientRect();
    return { x: event.clientX - edge.left, y: event.clientY - edge.top };
  }
}

/** Two ends in order, inside the image. */
function span(one: number, other: number, size: number): [number, number] {
  const inside = (value: number): number => round(Math.max(0, Math.min(size, value)));
  return [inside(Math.min(one, other)), inside(Math.max(one, other))];
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
