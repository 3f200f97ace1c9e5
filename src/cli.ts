#!/usr/bin/env node
// The program `pgkv`. The exit code is set, not forced, so that output on pipes is complete.
import { runProgram } from './cli/program.js';

// Whoever read our output has left (`pgkv sql … | head`): there is nobody to report to.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));

process.exitCode = await runProgram(process.argv.slice(2));
