// The entry: a page has `<div id="viewer" data-…>` and this script. Everything heavy is loaded from here, lazily.
import './viewer.css';

const host = document.getElementById('viewer');
if (host !== null && host.dataset['started'] === undefined) {
  host.dataset['started'] = 'yes';
  host.classList.add('wv-host');
  start(host).catch((error: unknown) => {
    console.error(error);
    const words = document.createElement('p');
    words.className = 'wv-fatal';
    words.setAttribute('role', 'alert');
    words.textContent = 'The viewer could not be started. Reload the page; if that does not help, tell your administrator.';
    host.replaceChildren(words);
  });
}

async function start(element: HTMLElement): Promise<void> {
  addStyleSheet();
  const { Viewer } = await import('./viewer');
  await Viewer.open(element);
}

/** The page needs to name the script alone: the style sheet that the build put beside it is found from here. */
function addStyleSheet(): void {
  const here = document.querySelector<HTMLScriptElement>('script[type="module"][src*="viewer.js"]');
  const address = new URL(here?.src ?? import.meta.url);
  address.pathname = address.pathname.replace(/viewer\.js$/, 'viewer.css');
  address.search = ''; // a version in it is the script's own
  if (document.querySelector('link[rel="stylesheet"][href*="viewer.css"]') !== null) return;
  const link = document.createElement('link');
  link.rel = 'stylesheet';
  link.href = address.href;
  document.head.append(link);
}
