// The picture itself: one Cornerstone3D stack viewport with its tools. Nothing else touches Cornerstone.
import { Enums, RenderingEngine, cache, eventTarget, getShouldUseCPURendering, init as initCore, utilities, type Types } from '@cornerstonejs/core';
import { init as initLoader, wadors, type Types as LoaderTypes } from '@cornerstonejs/dicom-image-loader';
import {
  Enums as ToolEnums,
  PanTool,
  StackScrollTool,
  ToolGroupManager,
  WindowLevelTool,
  ZoomTool,
  addTool,
  init as initTools,
  utilities as toolUtilities,
} from '@cornerstonejs/tools';
import { ServerRefusal, messageIn, type Slice } from './dicomweb';
import type { Frame } from './overlay';
import type { Window } from './windows';

export type ToolName = 'window' | 'pan' | 'zoom' | 'scroll';

/** What the stack tells its owner. */
export interface StackEvents {
  moved(index: number): void; // an image was asked for
  drawn(index: number): void; // … and is there
  failed(index: number, error: unknown): void; // … or is not
  changed(): void; // window, inversion or zoom are others now
  rendered(): void; // what is seen was drawn again, perhaps in another place
}

type ToolGroup = NonNullable<ReturnType<typeof ToolGroupManager.createToolGroup>>;

const NAME = 'wetread';
const VIEWPORT = 'stack';
const CACHE_BYTES = 768 * 1024 * 1024;
const UNTOUCHED = 0.01; // of zoom, and of millimetres that the image was moved
const GRACE_MS = 2000; // for the wanted image to come after all
const { MouseBindings } = ToolEnums;

const TOOLS = { window: WindowLevelTool, pan: PanTool, zoom: ZoomTool, scroll: StackScrollTool } as const;
const TOOL_NAMES = Object.keys(TOOLS) as ToolName[];

/** Bindings that stay, whatever tool the first mouse button and a single finger have. */
const FIXED: Record<ToolName, { mouseButton?: number; numTouchPoints?: number }[]> = {
  window: [],
  pan: [{ mouseButton: MouseBindings.Auxiliary }, { numTouchPoints: 3 }],
  zoom: [{ mouseButton: MouseBindings.Secondary }, { numTouchPoints: 2 }],
  scroll: [{ mouseButton: MouseBindings.Wheel }],
};

export class Stack {
  private slices: readonly Slice[] = [];
  private wanted = 0;
  private drawn = -1;
  private fitted = 1; // Cornerstone's figure of the zoom at which the image fills the element

  private constructor(
    private readonly engine: RenderingEngine,
    private readonly group: ToolGroup,
    private readonly element: HTMLDivElement,
    private readonly events: StackEvents,
  ) {}

  /** Set Cornerstone up on `element`, which must be in the page already. WebGL is used where there is any, else the CPU. */
  static open(element: HTMLDivElement, events: StackEvents): Stack {
    initCore({ rendering: { webGlContextCount: 1 }, debug: {} });
    initTools();
    initLoader({ maxWebWorkers: Math.max(1, Math.min(3, Math.floor(navigator.hardwareConcurrency / 2))) });
    cache.setMaxCacheSize(CACHE_BYTES);
    const engine = new RenderingEngine(NAME);
    engine.enableElement({ viewportId: VIEWPORT, type: Enums.ViewportType.STACK, element });
    const group = ToolGroupManager.createToolGroup(NAME);
    if (group === undefined) throw new Error('there is a tool group of this name already');
    for (const name of TOOL_NAMES) {
      addTool(TOOLS[name]);
      group.addTool(TOOLS[name].toolName);
    }
    group.addViewport(VIEWPORT, NAME);
    const prefetch = { maxImagesToPrefetch: 60, minBefore: 8, maxAfter: 16, directionExtraImages: 12 };
    toolUtilities.stackContextPrefetch.setConfiguration(prefetch);
    const stack = new Stack(engine, group, element, events);
    stack.listen();
    return stack;
  }

  /** Show other slices, the one at `index` first. The window starts again from the header. */
  async show(slices: readonly Slice[], index: number): Promise<void> {
    this.slices = slices;
    this.wanted = index;
    this.drawn = -1;
    for (const slice of slices) {
      // The loader looks a multi-frame instance's header up under its first frame alone.
      if (slice.frame === 1) wadors.metaDataManager.add(slice.imageId, slice.metadata as LoaderTypes.WADORSMetaData);
    }
    this.events.moved(index);
    try {
      await this.viewport.setStack(
        slices.map((slice) => slice.imageId),
        index,
      );
      this.fit();
      this.events.changed();
      this.viewport.render();
    } catch (error) {
      this.fail(error);
    }
    toolUtilities.stackContextPrefetch.enable(this.element);
  }

  /** Go to the slice at `index`, or to the nearest there is. */
  async go(index: number): Promise<void> {
    const target = Math.max(0, Math.min(this.slices.length - 1, index));
    if (this.slices.length === 0 || target === this.wanted) return;
    this.wanted = target;
    this.events.moved(target);
    try {
      await utilities.jumpToSlice(this.element, { imageIndex: target, debounceLoading: true });
    } catch (error) {
      this.fail(error);
    }
  }

  /** Ask for the present slice once more. */
  async retry(): Promise<void> {
    await this.show(this.slices, this.wanted);
  }

  /** Give the first mouse button and a single finger to `tool`. */
  use(tool: ToolName): void {
    for (const name of TOOL_NAMES) {
      const { toolName } = TOOLS[name];
      const first = name === tool ? [{ mouseButton: MouseBindings.Primary }, { numTouchPoints: 1 }] : [];
      this.group.setToolPassive(toolName, { removeAllBindings: true });
      const bindings = [...first, ...FIXED[name]];
      if (bindings.length > 0) this.group.setToolActive(toolName, { bindings });
    }
  }

  get window(): { center: number; width: number } | null {
    const range = this.viewport.getProperties().voiRange;
    if (range === undefined || range === null) return null; // null until the first image is drawn, whatever the type says
    const { windowCenter, windowWidth } = utilities.windowLevel.toWindowLevel(range.lower, range.upper);
    return { center: windowCenter, width: windowWidth };
  }

  set window(window: Pick<Window, 'center' | 'width'>) {
    const range = utilities.windowLevel.toLowHighRange(window.width, window.center);
    this.viewport.setProperties({ voiRange: range });
    this.viewport.render();
  }

  get inverted(): boolean {
    return this.viewport.getProperties().invert ?? false;
  }

  invert(): void {
    this.viewport.setProperties({ invert: !this.inverted });
    this.viewport.render();
    this.events.changed();
  }

  /** Window, inversion, zoom and position as they were when the series was opened. */
  reset(): void {
    this.viewport.resetCamera();
    this.fit();
    this.viewport.resetProperties();
    this.viewport.render();
    this.events.changed();
  }

  get zoom(): number {
    return this.viewport.getZoom() / this.fitted;
  }

  /** Smallest and largest value of the present image, or null while there is none; null for colour, too. */
  get range(): { min: number; max: number } | null {
    const image: Types.IImage | undefined = this.viewport.getCornerstoneImage();
    if (image === undefined || image.color) return null;
    return { min: image.minPixelValue, max: image.maxPixelValue };
  }

  /** Where a point of the element lies on the present image, in pixels of the frame; null while there is none. */
  pixelAt(x: number, y: number): { column: number; row: number; columns: number; rows: number } | null {
    const picture = this.viewport.getImageData();
    if (picture === undefined || picture === null) return null;
    const [column, row] = utilities.transformWorldToIndexContinuous(picture.imageData, this.viewport.canvasToWorld([x, y]));
    const [columns, rows] = picture.dimensions;
    return { column: (column ?? 0) + this.half, row: (row ?? 0) + this.half, columns, rows };
  }

  /** Where the frame lies on the element; null while there is none. */
  get frame(): Frame | null {
    const picture = this.viewport.getImageData();
    if (picture === undefined || picture === null) return null;
    const [columns, rows] = picture.dimensions;
    const at = (column: number, row: number): [number, number] => {
      const world = utilities.transformIndexToWorld(picture.imageData, [column - this.half, row - this.half, 0]) as Types.Point3;
      const [x, y] = this.viewport.worldToCanvas(world);
      return [x, y];
    };
    return { origin: at(0, 0), right: at(columns, 0), bottom: at(0, rows), columns, rows };
  }

  /** Fill the element, which has another size now, as long as nobody has zoomed or moved the image. */
  resize(): void {
    const { viewport } = this;
    const [panX, panY] = viewport.getPan();
    const untouched = Math.abs(this.zoom - 1) < UNTOUCHED && Math.hypot(panX, panY) < UNTOUCHED;
    this.engine.resize(true, !untouched);
    if (!untouched) return;
    this.fit();
    this.events.changed();
  }

  /**
   * What Cornerstone's places of pixels lack to DICOM's, which begin at the corner of the first pixel (PS3.3 C.18.6.1.2).
   * Drawn by WebGL they begin at its middle, drawn by the processor at its corner.
   */
  private get half(): number {
    return getShouldUseCPURendering() ? 0 : 0.5;
  }

  /** The image fills the element now. Drawn by the processor, its zoom is that of the pixels, and not 1. */
  private fit(): void {
    this.fitted = getShouldUseCPURendering() ? this.viewport.getZoom() || 1 : 1;
  }

  private get viewport(): Types.IStackViewport {
    return this.engine.getViewport(VIEWPORT) as Types.IStackViewport;
  }

  private listen(): void {
    const { Events } = Enums;
    const on = <T>(target: EventTarget, name: string, handle: (detail: T) => void): void =>
      target.addEventListener(name, (event) => handle((event as CustomEvent<T>).detail));
    on<{ newImageIdIndex: number }>(this.element, Events.STACK_VIEWPORT_SCROLL, ({ newImageIdIndex }) => {
      if (newImageIdIndex === this.wanted) return;
      this.wanted = newImageIdIndex;
      this.events.moved(newImageIdIndex);
    });
    on<{ imageIdIndex: number }>(this.element, Events.STACK_NEW_IMAGE, ({ imageIdIndex }) => {
      this.drawn = imageIdIndex;
      if (imageIdIndex === this.wanted) this.events.drawn(imageIdIndex);
    });
    on<{ imageId?: string; error?: unknown }>(eventTarget as EventTarget, Events.IMAGE_LOAD_ERROR, ({ imageId, error }) => {
      if (imageId === this.slices[this.wanted]?.imageId) this.fail(error);
    });
    on(this.element, Events.IMAGE_RENDERED, () => this.events.rendered());
    on(this.element, Events.VOI_MODIFIED, () => this.events.changed());
    on(this.element, Events.CAMERA_MODIFIED, () => this.events.changed());
    this.element.addEventListener('contextmenu', (event) => event.preventDefault());
    // Some failures inside the loader reach nobody else: without this the image would be waited for for ever.
    window.addEventListener('unhandledrejection', ({ reason }) => {
      const waited = this.wanted;
      window.setTimeout(() => {
        if (this.drawn !== this.wanted && this.wanted === waited) this.fail(reason);
      }, GRACE_MS);
    });
  }

  private fail(error: unknown): void {
    console.error(error);
    this.events.failed(this.wanted, asRefusal(error));
  }
}

/** The loader rejects with the request itself: make of it what the rest of the viewer understands. */
function asRefusal(error: unknown): unknown {
  const request = error instanceof XMLHttpRequest ? error : (error as { request?: unknown; error?: unknown } | null)?.error;
  if (!(request instanceof XMLHttpRequest)) return error;
  const body = request.response instanceof ArrayBuffer ? new TextDecoder().decode(request.response) : '';
  return new ServerRefusal(request.status, messageIn(body));
}
