// TypeScript as JavaScript: types are taken away by esbuild, not checked.
'use strict';

const { spawnSync } = require('child_process');

class TypeScriptError extends SyntaxError {
  constructor(text) {
    super(text.split('\n', 1)[0]);
    this.name = 'SyntaxError';
    this.stack = text;
  }
}

// Throws a SyntaxError for what is not TypeScript.
function compileTypeScript(code) {
  const run = spawnSync('esbuild',
                        ['--loader=ts', '--format=esm', '--target=node18', '--log-level=error',
                         '--color=false', '--tsconfig-raw={"compilerOptions":' +
                         '{"importsNotUsedAsValues":"preserve","preserveValueImports":true}}'],
                        { input: code, maxBuffer: 1 << 28 });
  if (run.error) throw new Error(`esbuild cannot be run: ${run.error.message}`);
  if (run.status !== 0) throw new TypeScriptError(run.stderr.toString().trim());
  return run.stdout.toString();
}

module.exports = { compileTypeScript };
