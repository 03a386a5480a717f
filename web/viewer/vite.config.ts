// How the viewer's files come to be: fixed names for what pages refer to, hashed names for the rest.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { defineConfig, type Plugin } from 'vite';

const here = import.meta.dirname;

/** Puts htmx, which the other pages use, beside the viewer: one npm installation serves the whole of `static/`. */
function htmx(): Plugin {
  return {
    name: 'wetread-htmx',
    generateBundle() {
      const source = readFileSync(join(here, 'node_modules/htmx.org/dist/htmx.min.js'));
      this.emitFile({ type: 'asset', fileName: 'htmx.min.js', source });
    },
  };
}

interface LockedPackage {
  version?: string;
  license?: string;
  dev?: boolean;
  optional?: boolean;
}

/** Writes the licences of everything that may be in the bundle: their terms ask that the text goes along. */
function licences(): Plugin {
  return {
    name: 'wetread-licences',
    generateBundle() {
      const lock = JSON.parse(readFileSync(join(here, 'package-lock.json'), 'utf8')) as {
        packages: Record<string, LockedPackage>;
      };
      const sections = Object.entries(lock.packages)
        .filter(([path, entry]) => path.startsWith('node_modules/') && !entry.dev && !entry.optional)
        .map(([path, entry]) => {
          const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
          return `${name} ${entry.version ?? ''} (${entry.license ?? 'see text'})\n\n${licenceText(join(here, path))}`;
        });
      this.emitFile({
        type: 'asset',
        fileName: 'THIRD-PARTY-LICENSES.txt',
        source: sections.join(`\n\n${'-'.repeat(100)}\n\n`),
      });
    },
  };
}

function licenceText(folder: string): string {
  const names = ['LICENSE', 'LICENSE.md', 'LICENSE.txt', 'LICENCE', 'license', 'license.md', 'LICENSE-MIT', 'LICENSE.TXT'];
  const found = names.map((name) => join(folder, name)).find((path) => existsSync(path));
  return found === undefined ? 'The package carries no licence file of its own.' : readFileSync(found, 'utf8').trim();
}

/** Codecs' WebAssembly stays out, as their code does. */
function withoutCodecs(): Plugin {
  return {
    name: 'wetread-without-codecs',
    generateBundle(_options, bundle) {
      for (const name of Object.keys(bundle)) if (name.endsWith('.wasm')) delete bundle[name];
    },
  };
}

export default defineConfig({
  base: './', // pages decide where the folder is mounted
  publicDir: false,
  resolve: {
    alias: [
      // Readers of surface meshes bring an XML library that needs Node; the codecs are not needed, see absent.ts.
      { find: /^@kitware\/vtk\.js\/IO\/.*$/, replacement: join(here, 'src/absent.ts') },
      { find: /^@cornerstonejs\/codec-[^/]+\/.*js$/, replacement: join(here, 'src/absent.ts') },
    ],
  },
  plugins: [htmx(), licences(), withoutCodecs()],
  build: {
    target: 'es2023',
    cssTarget: ['chrome125', 'firefox128', 'safari17.5'], // these know light-dark(); taking it apart loses the page's colours
    assetsInlineLimit: 0, // the page's policy allows no data: scripts or styles
    chunkSizeWarningLimit: 4000,
    cssCodeSplit: false,
    modulePreload: false,
    reportCompressedSize: false,
    rolldownOptions: {
      input: join(here, 'src/main.ts'),
      output: {
        entryFileNames: 'viewer.js',
        chunkFileNames: 'assets/[name]-[hash].js',
        // Otherwise helpers live in viewer.js, and importing them from a chunk runs the entry a second time.
        codeSplitting: { groups: [{ name: 'runtime', test: /rolldown[\\/]runtime|vite[\\/]preload-helper/ }] },
        assetFileNames: (asset) => (asset.names.some((name) => name.endsWith('.css')) ? 'viewer.css' : 'assets/[name]-[hash][extname]'),
      },
    },
  },
  worker: {
    format: 'es',
    plugins: () => [withoutCodecs()],
    rolldownOptions: {
      output: {
        entryFileNames: 'assets/[name]-[hash].js',
        chunkFileNames: 'assets/[name]-[hash].js',
        assetFileNames: 'assets/[name]-[hash][extname]',
      },
    },
  },
});
