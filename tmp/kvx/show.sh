node --import=file:///work/main/node_modules/@tapjs/typescript/dist/esm/import.mjs tmp/kvx/plan.ts "$@"
