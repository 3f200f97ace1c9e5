// Draws the ratios of a run as SVG: `node bench/plot.mjs [JSON [SVG]]`. One row a cell, one dot for pgkv and one for PgBouncer, both to
// Postgres asked directly (the line at 1×); a doubling is the same distance everywhere. Colours suit a light and a dark page, so
// the background stays clear.

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const WIDTH = 820;
const LABEL_WIDTH = 310;
const FIGURE_WIDTH = 150;
const ROW_HEIGHT = 24;
const TOP = 64;
const BOTTOM = 56;
const LANES = [
  { name: 'pgbouncer', label: 'PgBouncer', radius: 5 },
  { name: 'pgkv', label: 'pgkv', radius: 6.5 },
];
const TITLES = {
  'point-read': 'point read',
  'literal-read': 'point read, tenant in the text',
  'literal-upsert': 'upsert, tenant in the text',
  'cas-update': 'CAS by UPDATE',
  'cas-function': 'CAS by kv_cas',
  mix: '95 % reads, 5 % upserts',
  'pipelined-read': 'pipelined reads',
};

const style = `
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f; }
.small { font-size: 11px; fill: #57606a; }
.title { font-size: 15px; font-weight: 600; }
.grid { stroke: #8c959f; stroke-opacity: 0.35; }
.base { stroke: #57606a; stroke-width: 1.5; }
.link { stroke: #8c959f; stroke-opacity: 0.5; stroke-width: 2; }
.pgkv { fill: #0969da; }
.pgbouncer { fill: #bf5700; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .small { fill: #9198a1; }
  .base { stroke: #9198a1; }
  .pgkv { fill: #58a6ff; }
  .pgbouncer { fill: #f0883e; }
}`;

const escaped = (text) => text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/"/g, '&quot;');
const text = (x, y, words, { anchor = 'start', kind = '' } = {}) =>
  `<text x="${x}" y="${y}" text-anchor="${anchor}"${kind === '' ? '' : ` class="${kind}"`}>${escaped(words)}</text>`;
const line = (x1, y1, x2, y2, kind) => `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" class="${kind}"/>`;

const ratioOf = (entry, lane) => entry.lanes[lane]?.to.direct?.opsPerSecond ?? undefined;

/** What docs/FIGURES.md shows: evenly drawn keys, prepared statements first, then the simple protocol. */
function shownCells(summary) {
  const shown = summary.filter(({ keys, workload }) => keys === 'uniform' && workload !== 'ordinary-read');
  const order = ['prepared', 'simple'];
  return shown
    .filter((entry) => order.includes(entry.protocol) && ratioOf(entry, 'pgkv') !== undefined)
    .sort((a, b) => order.indexOf(a.protocol) - order.indexOf(b.protocol));
}

const labelOf = ({ workload, protocol, clients }) =>
  `${TITLES[workload] ?? workload}, ${clients} client${clients === 1 ? '' : 's'}${protocol === 'simple' ? ', simple' : ''}`;

/** Powers of two around all ratios. */
function scaleOf(ratios) {
  const lowest = Math.floor(Math.log2(Math.min(0.5, ...ratios)));
  const highest = Math.ceil(Math.log2(Math.max(2, ...ratios)));
  const width = WIDTH - LABEL_WIDTH - FIGURE_WIDTH;
  const x = (ratio) => Math.round(LABEL_WIDTH + ((Math.log2(ratio) - lowest) / (highest - lowest)) * width);
  const ticks = Array.from({ length: highest - lowest + 1 }, (_, index) => 2 ** (lowest + index));
  return { x, ticks };
}

function row(entry, index, x) {
  const y = TOP + ROW_HEIGHT * (index + 0.5);
  const measured = LANES.filter(({ name }) => ratioOf(entry, name) !== undefined);
  const places = measured.map(({ name }) => x(ratioOf(entry, name)));
  const dots = measured.map(
    ({ name, radius }, at) => `<circle cx="${places[at]}" cy="${y}" r="${radius}" class="${name}"/>`,
  );
  const perSecond = Math.round(entry.lanes.pgkv.opsPerSecond).toLocaleString('en');
  return [
    text(LABEL_WIDTH - 14, y + 4, labelOf(entry), { anchor: 'end' }),
    line(Math.min(...places), y, Math.max(...places), y, 'link'),
    ...dots,
    text(WIDTH - 76, y + 4, `${ratioOf(entry, 'pgkv').toFixed(2)}×`, { anchor: 'end' }),
    text(WIDTH - 8, y + 4, perSecond, { anchor: 'end', kind: 'small' }),
  ];
}

function legend() {
  return LANES.flatMap(({ name, label, radius }, index) => {
    const x = LABEL_WIDTH + 100 * index;
    return [`<circle cx="${x}" cy="36" r="${radius}" class="${name}"/>`, text(x + 12, 40, label)];
  });
}

/** @param {object} results what run.mjs writes */
export function plotOf({ summary, machine, setting }) {
  const cells = shownCells(summary);
  const ratios = cells.flatMap((entry) => LANES.map(({ name }) => ratioOf(entry, name)).filter((ratio) => ratio > 0));
  if (ratios.length === 0) throw new Error('nothing to draw: no run of pgkv and of direct Postgres in the same cell');
  const { x, ticks } = scaleOf(ratios);
  const bottom = TOP + ROW_HEIGHT * cells.length;
  const height = bottom + BOTTOM;
  const servers = Object.values(setting.servers).join(', ');
  const parts = [
    text(8, 20, 'Operations a second, as a multiple of Postgres asked directly', { kind: 'title' }),
    ...legend(),
    text(WIDTH - 76, 40, 'pgkv', { anchor: 'end', kind: 'small' }),
    text(WIDTH - 8, 40, 'per second', { anchor: 'end', kind: 'small' }),
    ...ticks.flatMap((tick) => [
      line(x(tick), TOP, x(tick), bottom, tick === 1 ? 'base' : 'grid'),
      text(x(tick), bottom + 16, `${tick}×`, { anchor: 'middle', kind: 'small' }),
    ]),
    ...cells.flatMap((entry, index) => row(entry, index, x)),
    text(8, height - 20, `${servers}; ${machine.cores} cores for load, router and server`, { kind: 'small' }),
    text(
      8,
      height - 5,
      `Node ${machine.node}, load by ${setting.generator}, durable commits, prepared statements unless noted`,
      {
        kind: 'small',
      },
    ),
  ];
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" \
aria-label="Throughput of pgkv and PgBouncer beside direct Postgres">
<style>${style}
</style>
${parts.join('\n')}
</svg>
`;
}

export function writePlot(results, path) {
  writeFileSync(path, plotOf(results));
  console.log(`plot: ${path}`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const beside = (name) => fileURLToPath(new URL(name, import.meta.url));
  const [json = beside('out/latest.json'), svg = beside('figures.svg')] = process.argv.slice(2);
  writePlot(JSON.parse(readFileSync(json, 'utf8')), svg);
}
