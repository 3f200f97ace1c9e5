// How keys are drawn: evenly, or by Zipf's law with 0.99 as in YCSB (a few keys take most of the work). As expressions of pgbench
// and as functions, which must draw alike. pgbench's own random_zipfian takes no parameter below 1.001, so this is YCSB's way of
// drawing (Gray et al., "Quickly generating billion-record synthetic databases", SIGMOD 1994).

export const KEY_COUNT = 100_000;
const ZIPF = 0.99;

function zipfConstants(count) {
  let zeta = 0;
  for (let rank = 1; rank <= count; rank++) zeta += rank ** -ZIPF;
  const zetaOfTwo = 1 + 2 ** -ZIPF;
  return { zeta, zetaOfTwo, eta: (1 - (2 / count) ** (1 - ZIPF)) / (1 - zetaOfTwo / zeta), alpha: 1 / (1 - ZIPF) };
}

const { zeta, zetaOfTwo, eta, alpha } = zipfConstants(KEY_COUNT);

function drawZipf() {
  const u = Math.random();
  if (u * zeta < 1) return 1;
  if (u * zeta < zetaOfTwo) return 2;
  return Math.min(KEY_COUNT, 1 + Math.floor(KEY_COUNT * (eta * u - eta + 1) ** alpha));
}

const zipfExpression = `case when :u * ${zeta} < 1 then 1 when :u * ${zeta} < ${zetaOfTwo} then 2 \
else least(${KEY_COUNT}, 1 + int(${KEY_COUNT} * pow(${eta} * :u - ${eta} + 1, ${alpha.toFixed(1)}))) end`;

/** By name: `set(variable)` gives the lines of a pgbench script, `draw()` a number from 1 to KEY_COUNT. */
export const keyDistributions = {
  uniform: {
    set: (variable) => `\\set ${variable} random(1, ${KEY_COUNT})`,
    draw: () => 1 + Math.floor(Math.random() * KEY_COUNT),
  },
  zipf: {
    set: (variable) => `\\set u random(0, 999999999) / 1000000000.0\n\\set ${variable} ${zipfExpression}`,
    draw: drawZipf,
  },
};
