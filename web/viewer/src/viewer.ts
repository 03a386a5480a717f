// The viewer's behaviour: which series and slice is shown, and what buttons, keys and the page's data ask for.
import { inWords, number, numbers, seriesOf, slicesOf, thumbnail, type Series, type Slice } from './dicomweb';
import { KeyList } from './keys';
import { buildLayout, make, type Layout } from './layout';
import { Marker, type Box } from './mark';
import { edges } from './orientation';
import { Overlay, overlaysOf, sameImage, type Overlays, type Place, type Region } from './overlay';
import { Outlines } from './outlines';
import { Stack, type ToolName } from './stack';
import { windowsFor, type Window } from './windows';

const PAGE_STEP = 10; // slices by which PageUp and PageDown move
const SHOW_LOADING_AFTER_MS = 250; // so that quick slices do not flicker

export class Viewer {
  private readonly layout: Layout = buildLayout();
  private readonly cache = new Map<string, Promise<Slice[]>>();
  private overlay!: Overlay; // like the stack
  private outlines!: Outlines; // like the stack
  private help!: KeyList; // like the stack
  private regions: readonly Region[] = [];
  private stack!: Stack; // set as the last act of `open`, before anything can call it
  private series: Series[] = [];
  private current: Series | null = null;
  private slices: readonly Slice[] = [];
  private index = 0;
  private windows: Window[] = [];
  private loadingTimer = 0;
  private afterRetry: () => void = () => undefined;

  private constructor(
    private readonly host: HTMLElement,
    private readonly root: string,
    private readonly studyUid: string,
    private keyImages: readonly Place[],
  ) {}

  /** Open the viewer in `host`, whose data attributes say what to show. */
  static async open(host: HTMLElement): Promise<Viewer> {
    const root = (host.dataset['wadoRoot'] ?? '/dicom-web').replace(/\/+$/, '');
    const studyUid = host.dataset['studyUid'] ?? '';
    const viewer = new Viewer(host, root, studyUid, keyImagesIn(host.dataset['keyImages']));
    host.replaceChildren(viewer.layout.root);
    viewer.stack = Stack.open(viewer.layout.viewport, {
      moved: (index) => viewer.moved(index),
      drawn: (index) => viewer.drawn(index),
      failed: (index, error) => viewer.failed(index, error),
      changed: () => viewer.showWindow(),
      rendered: () => {
        viewer.overlay.draw();
        viewer.outlines.place();
      },
    });
    viewer.overlay = new Overlay(viewer.layout, () => viewer.stack.frame);
    viewer.outlines = new Outlines(viewer.layout, () => viewer.stack.frame);
    viewer.help = new KeyList(viewer.layout.help);
    viewer.layout.root.append(viewer.help.dialog);
    viewer.listen();
    viewer.choose(matchMedia('(pointer: coarse)').matches ? 'scroll' : 'window');
    await viewer.start();
    return viewer;
  }

  private async start(): Promise<void> {
    this.say('Loading the series …');
    try {
      this.series = await seriesOf(this.root, this.studyUid);
    } catch (error) {
      this.complain(`The study's images cannot be listed. ${inWords(error)}`, () => void this.start());
      return;
    }
    this.listSeries();
    const first = this.keyImages[0];
    const keySeries = this.series.find((series) => series.uid === first?.series_uid);
    const opening = keySeries ?? this.series[0];
    if (opening === undefined) {
      this.say('This study has no images that can be shown.');
      return;
    }
    await this.openSeries(opening, keySeries === undefined ? undefined : first);
    await this.listKeyImages();
    await this.loadOverlays();
    this.followAddress(); // of a link that was followed before there was anything to show
  }

  /** Ask what is to be laid over the images. Asked again when the finding changes, which may bring other key images. */
  private async loadOverlays(): Promise<void> {
    const overlays: Overlays | null = await overlaysOf(this.host.dataset['overlays']);
    if (overlays === null) return;
    this.regions = overlays.regions;
    this.overlay.set(overlays);
    this.outlines.set(overlays.outlines);
    if (JSON.stringify(overlays.key_images) === JSON.stringify(this.keyImages)) return;
    this.keyImages = overlays.key_images;
    await this.listKeyImages();
  }

  /** Open a series at `image`, or in the middle, where there is most to see. */
  private async openSeries(series: Series, image?: Place): Promise<void> {
    this.current = series;
    this.markSeries();
    this.say('Loading the series …');
    let slices: Slice[];
    try {
      slices = await this.slicesOf(series.uid);
    } catch (error) {
      if (this.current === series) {
        this.complain(`This series cannot be opened. ${inWords(error)}`, () => void this.openSeries(series, image));
      }
      return;
    }
    if (this.current !== series) return; // another one was chosen meanwhile
    this.slices = slices;
    const found = image === undefined ? -1 : indexOf(slices, image);
    const index = found >= 0 ? found : Math.floor((slices.length - 1) / 2);
    this.layout.slider.max = String(Math.max(1, slices.length));
    if (slices.length === 0) {
      this.say('This series has no images that can be shown.');
      return;
    }
    await this.stack.show(slices, index);
  }

  private async jumpTo(image: Place): Promise<void> {
    const series = this.series.find((candidate) => candidate.uid === image.series_uid);
    if (series === undefined) return;
    if (this.current !== series || this.slices.length === 0) {
      await this.openSeries(series, image);
      return;
    }
    const index = indexOf(this.slices, image);
    if (index >= 0) await this.stack.go(index);
  }

  private slicesOf(seriesUid: string): Promise<Slice[]> {
    let slices = this.cache.get(seriesUid);
    if (slices === undefined) {
      slices = slicesOf(this.root, this.studyUid, seriesUid);
      slices.catch(() => this.cache.delete(seriesUid)); // so that trying again asks again
      this.cache.set(seriesUid, slices);
    }
    return slices;
  }

  // What the stack reports.

  private moved(index: number): void {
    this.index = index;
    this.overlay.show(null); // what lay over the last image does not belong to the next
    this.outlines.show(null, this.slices);
    const position = `${index + 1} / ${this.slices.length}`;
    this.layout.slider.value = String(index + 1);
    this.layout.slider.setAttribute('aria-valuetext', `Slice ${index + 1} of ${this.slices.length}`);
    this.layout.position.value = position;
    this.layout.previous.disabled = index === 0;
    this.layout.next.disabled = index === this.slices.length - 1;
    this.markKeyImage();
    clearTimeout(this.loadingTimer);
    this.loadingTimer = window.setTimeout(() => this.say('Loading the image …'), SHOW_LOADING_AFTER_MS);
  }

  private drawn(index: number): void {
    clearTimeout(this.loadingTimer);
    this.say('');
    this.layout.viewport.classList.remove('wv-hidden');
    const slice = this.slices[index];
    if (slice === undefined || this.current === null) return;
    this.describe(slice, this.current);
    this.overlay.show(slice);
    this.outlines.show(slice, this.slices);
    this.listWindows(slice);
    this.showWindow();
    this.host.dispatchEvent(new CustomEvent('wetread:shown', { bubbles: true, detail: { index, sop_uid: slice.sopUid, frame: slice.frame } }));
  }

  private failed(index: number, error: unknown): void {
    clearTimeout(this.loadingTimer);
    // The picture before it must not pass for the one that is missing.
    this.layout.viewport.classList.add('wv-hidden');
    this.layout.viewport.setAttribute('aria-label', `Slice ${index + 1} cannot be shown`);
    this.complain(`Slice ${index + 1} cannot be shown. ${inWords(error)}`, () => void this.stack.retry());
  }

  // What is said about the image.

  private describe(slice: Slice, series: Series): void {
    const { corner, edge, viewport } = this.layout;
    const name = nameOf(series);
    corner.topLeft.replaceChildren(line(name), line(series.modality));
    const key = this.keyImages.findIndex((image) => sameImage(slice, image));
    corner.topRight.textContent = key >= 0 ? `Key image ${key + 1}` : '';
    const thickness = number(slice.metadata, '00180050');
    const where = [`Slice ${this.index + 1} / ${this.slices.length}`];
    if (thickness !== null && thickness > 0) where.push(`${round(thickness)} mm thick`);
    corner.bottomLeft.replaceChildren(...where.map(line));
    const letters = edges(numbers(slice.metadata, '00200037'));
    for (const side of ['left', 'right', 'top', 'bottom'] as const) edge[side].textContent = letters?.[side] ?? '';
    const label = `${name}, ${series.modality}, slice ${this.index + 1} of ${this.slices.length}${key >= 0 ? `, key image ${key + 1}` : ''}`;
    viewport.setAttribute('aria-label', label);
  }

  private showWindow(): void {
    if (this.slices.length === 0) return;
    const { presets, corner, invert } = this.layout;
    const shown = this.stack.window;
    const lines = [`Zoom ${Math.round(this.stack.zoom * 100)} %`];
    if (shown !== null && this.stack.range !== null) lines.unshift(`W ${round(shown.width)}  L ${round(shown.center)}`);
    corner.bottomRight.replaceChildren(...lines.map(line));
    const chosen = this.windows.findIndex((window) => shown !== null && near(window.center, shown.center) && near(window.width, shown.width));
    presets.value = chosen >= 0 ? String(chosen) : '';
    invert.setAttribute('aria-pressed', String(this.stack.inverted));
  }

  private listWindows(slice: Slice): void {
    const { presets } = this.layout;
    this.windows = windowsFor(slice.metadata, this.stack.range);
    const options = this.windows.map(({ name }, index) => make('option', '', { value: String(index) }, name));
    const own = make('option', '', { value: '', disabled: '' }, 'Own window');
    presets.replaceChildren(...options, own);
    presets.hidden = this.windows.length === 0;
  }

  // Lists.

  private listSeries(): void {
    const items = this.series.map((series) => {
      const picture = make('img', 'wv-thumbnail', { alt: '', loading: 'lazy', src: thumbnail(this.root, this.studyUid, series.uid) });
      picture.addEventListener('error', () => picture.classList.add('wv-no-picture'));
      const count = `${series.instanceCount} ${series.instanceCount === 1 ? 'image' : 'images'}`;
      const words = make('span', 'wv-series-words', {}, make('strong', '', {}, nameOf(series)), make('span', 'wv-muted', {}, `${series.modality} · ${count}`));
      const button = make('button', 'wv-series-button', { type: 'button', 'data-series': series.uid, title: nameOf(series) }, picture, words);
      button.addEventListener('click', () => void this.openSeries(series));
      return make('li', '', {}, button);
    });
    this.layout.seriesList.replaceChildren(...items);
  }

  private markSeries(): void {
    for (const button of this.layout.seriesList.querySelectorAll('button')) {
      button.setAttribute('aria-current', String(button.dataset['series'] === this.current?.uid));
    }
  }

  /** A button for each key image; its slice number is known once its series was asked for. */
  private async listKeyImages(): Promise<void> {
    const { keys } = this.layout;
    const buttons: HTMLElement[] = [];
    for (const [order, image] of this.keyImages.entries()) {
      const slices = await this.slicesOf(image.series_uid).catch(() => []);
      const index = indexOf(slices, image);
      if (index < 0) continue;
      const [name, where] = [`Key image ${order + 1}`, ` – slice ${index + 1}`];
      const attributes = { type: 'button', 'data-key': String(order), title: name + where, 'aria-label': name + where };
      const button = make('button', 'wv-button wv-key', attributes, make('span', '', {}, name), make('span', 'wv-where', {}, where));
      button.addEventListener('click', () => void this.jumpTo(image));
      buttons.push(button);
    }
    keys.replaceChildren(...buttons);
    keys.hidden = buttons.length === 0;
    this.markKeyImage();
  }

  private markKeyImage(): void {
    const slice = this.slices[this.index];
    for (const button of this.layout.keys.querySelectorAll('button')) {
      const image = this.keyImages[Number(button.dataset['key'])];
      button.setAttribute('aria-pressed', String(slice !== undefined && image !== undefined && sameImage(slice, image)));
    }
  }

  // Buttons, keys and addresses.

  private listen(): void {
    const { layout, stack } = this;
    for (const [name, button] of Object.entries(layout.tools)) button.addEventListener('click', () => this.choose(name as ToolName));
    layout.invert.addEventListener('click', () => stack.invert());
    layout.reset.addEventListener('click', () => stack.reset());
    layout.presets.addEventListener('change', () => {
      const window = this.windows[Number(layout.presets.value)];
      if (window !== undefined) stack.window = window;
    });
    layout.slider.addEventListener('input', () => void stack.go(Number(layout.slider.value) - 1));
    layout.previous.addEventListener('click', () => void stack.go(this.index - 1));
    layout.next.addEventListener('click', () => void stack.go(this.index + 1));
    layout.retry.addEventListener('click', () => this.afterRetry());
    layout.root.addEventListener('keydown', (event) => this.pressed(event));
    new ResizeObserver(() => stack.resize()).observe(layout.viewport);
    window.addEventListener('hashchange', () => this.followAddress());
    const marker = new Marker(layout.stage, (x, y) => stack.pixelAt(x, y), (box) => this.marked(box));
    this.host.addEventListener('wetread:mark', () => marker.start());
    this.host.addEventListener('wetread:region', (event) => this.overlay.propose((event as CustomEvent<Region | null>).detail));
    // The finding beside the images refreshes itself.
    document.addEventListener('htmx:load', (event) => {
      if (event.target instanceof Element && event.target.id === 'finding') void this.loadOverlays();
    });
    document.addEventListener('click', (event) => {
      const link = event.target instanceof Element ? event.target.closest<HTMLAnchorElement>('a[href^="#key-image-"], a[href^="#region-"], a[href^="#outline-"]') : null;
      if (link !== null && link.hash === location.hash) this.followAddress(); // the address does not change, so nobody else hears of it
    });
  }

  /** Tell the page which region of which image was marked; null where the person let it be. */
  private marked(box: Box | null): void {
    const slice = this.slices[this.index];
    if (slice === undefined) return;
    const detail = { box, sop_uid: slice.sopUid, frame: slice.frame, index: this.index };
    this.host.dispatchEvent(new CustomEvent('wetread:marked', { bubbles: true, detail }));
  }

  private choose(tool: ToolName): void {
    this.stack.use(tool);
    for (const [name, button] of Object.entries(this.layout.tools)) button.setAttribute('aria-pressed', String(name === tool));
  }

  private pressed(event: KeyboardEvent): void {
    // Sliders and boxes know keys with names; letters are the viewer's there, too.
    if (event.target instanceof HTMLSelectElement || (event.target instanceof HTMLInputElement && !/^[a-z?]$/i.test(event.key))) return;
    if (event.ctrlKey || event.altKey || event.metaKey || this.slices.length === 0) return;
    const actions: Record<string, () => unknown> = {
      ArrowUp: () => this.stack.go(this.index - 1),
      ArrowLeft: () => this.stack.go(this.index - 1),
      ArrowDown: () => this.stack.go(this.index + 1),
      ArrowRight: () => this.stack.go(this.index + 1),
      PageUp: () => this.stack.go(this.index - PAGE_STEP),
      PageDown: () => this.stack.go(this.index + PAGE_STEP),
      Home: () => this.stack.go(0),
      End: () => this.stack.go(this.slices.length - 1),
      r: () => this.stack.reset(),
      i: () => this.stack.invert(),
      m: () => this.overlay.toggleMap(),
      k: () => this.overlay.toggleRegions(),
      o: () => this.outlines.toggle(),
      '?': () => this.help.open(),
    };
    const action = actions[event.key] ?? actions[event.key.toLowerCase()];
    if (action === undefined) return;
    event.preventDefault();
    action();
  }

  /**
   * A link to `#key-image-2` anywhere on the page shows the second key image, one to `#region-1` the first region, one to
   * `#outline-7-1` the image on which that segment is largest, with its line.
   */
  private followAddress(): void {
    const outlined = /^#outline-(\d+-\d+)$/.exec(location.hash)?.[1];
    if (outlined !== undefined) {
      this.host.scrollIntoView({ block: 'nearest' });
      void this.outlines.find(outlined).then((image) => (image === undefined ? undefined : this.jumpTo(image)));
      return;
    }
    const found = /^#(key-image|region)-(\d+)$/.exec(location.hash);
    const place = Number(found?.[2]) - 1;
    const image = found?.[1] === 'region' ? this.regions[place]?.image : this.keyImages[place];
    if (image === undefined) return;
    this.host.scrollIntoView({ block: 'nearest' });
    void this.jumpTo(image);
  }

  // The words over the picture.

  private say(words: string): void {
    const { status, statusText, retry } = this.layout;
    statusText.textContent = words;
    status.hidden = words === '';
    status.classList.remove('wv-trouble');
    retry.hidden = true;
  }

  private complain(words: string, again: () => void): void {
    this.say(words);
    this.layout.status.classList.add('wv-trouble');
    this.layout.retry.hidden = false;
    this.afterRetry = again;
  }
}

/** The page's list of key images. What is not such a list is none: the images can be shown all the same. */
function keyImagesIn(json: string | undefined): Place[] {
  try {
    const list: unknown = JSON.parse(json ?? '[]');
    return Array.isArray(list) ? (list as Place[]).filter((image) => typeof image?.sop_uid === 'string') : [];
  } catch (error) {
    console.error(error);
    return [];
  }
}

function indexOf(slices: readonly Slice[], image: Place): number {
  return slices.findIndex((slice) => sameImage(slice, image));
}

function nameOf(series: Series): string {
  return series.description || (series.number === null ? 'Series without a name' : `Series ${series.number}`);
}

function line(words: string): HTMLElement {
  return make('div', '', {}, words);
}

function round(value: number): string {
  return Number(value.toPrecision(4)).toLocaleString(undefined, { maximumFractionDigits: Math.abs(value) < 10 ? 2 : 0 });
}

function near(a: number, b: number): boolean {
  return Math.abs(a - b) <= Math.max(1.5, Math.abs(a) * 0.002);
}
