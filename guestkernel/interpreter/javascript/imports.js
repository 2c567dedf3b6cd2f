// Import declarations, which only modules may have, as what a REPL can run.
'use strict';

// Walks `code` and calls `visit(word, start)` for each identifier or keyword that is code: not in a
// string, template, comment or regular expression, nor after a dot. `visit` returns where to go on,
// or nothing to go on behind the word.
function walk(code, visit) {
  const templates = [];  // for each open `${`, how many braces are open inside
  let depth = 0;
  let at = 0;
  // Whether a `/` here would begin a regular expression.
  let expressionMayBegin = true;
  const skipTemplate = () => {
    while (at < code.length) {
      if (code[at] === '\\') {
        at += 2;
      } else if (code[at] === '`') {
        at++;
        return;
      } else if (code.startsWith('${', at)) {
        at += 2;
        templates.push(depth);
        depth = 0;
        expressionMayBegin = true;
        return;
      } else {
        at++;
      }
    }
  };
  while (at < code.length) {
    const c = code[at];
    if (/\s/.test(c)) {
      at++;
      continue;
    }
    if (code.startsWith('//', at)) {
      const end = code.indexOf('\n', at);
      at = end < 0 ? code.length : end;
      continue;
    }
    if (code.startsWith('/*', at)) {
      const end = code.indexOf('*/', at + 2);
      at = end < 0 ? code.length : end + 2;
      continue;
    }
    if (c === '"' || c === "'") {
      at++;
      while (at < code.length && code[at] !== c && code[at] !== '\n') at += code[at] === '\\' ? 2 : 1;
      at++;
      expressionMayBegin = false;
      continue;
    }
    if (c === '`') {
      at++;
      expressionMayBegin = false;
      skipTemplate();
      continue;
    }
    if (c === '/' && expressionMayBegin) {
      let inClass = false;
      at++;
      while (at < code.length && code[at] !== '\n' && (inClass || code[at] !== '/')) {
        if (code[at] === '\\') at++;
        else if (code[at] === '[') inClass = true;
        else if (code[at] === ']') inClass = false;
        at++;
      }
      at++;
      expressionMayBegin = false;
      continue;
    }
    const word = /^[\p{ID_Start}$_][\p{ID_Continue}$\u200c\u200d]*/u.exec(code.slice(at, at + 256))?.[0];
    if (word !== undefined) {
      const afterDot = /(^|[^.])\.\s*$/.test(code.slice(Math.max(0, at - 16), at));
      const next = afterDot ? undefined : visit(word, at);
      at = next ?? at + word.length;
      expressionMayBegin = /^(return|typeof|case|in|of|void|delete|throw|new|do|else|await|yield)$/
          .test(word);
      continue;
    }
    if (c === '{') depth++;
    if (c === '}') {
      if (depth === 0 && templates.length > 0) {
        depth = templates.pop();
        at++;
        expressionMayBegin = false;
        skipTemplate();
        continue;
      }
      depth = Math.max(0, depth - 1);
    }
    expressionMayBegin = !/[)\]}\d.]/.test(c);
    at++;
  }
}

const kName = '[\\p{ID_Start}$_][\\p{ID_Continue}$]*';
const kDeclaration = new RegExp(
    `import\\s*(?:(?<only>["'])(?<bare>[^"'\\n]+)\\k<only>|` +
    `(?:(?<first>${kName})\\s*,?\\s*)?` +
    `(?:\\*\\s*as\\s+(?<space>${kName})\\s*|\\{(?<names>[^{}]*)\\}\\s*)?` +
    `from\\s*(?<quote>["'])(?<from>[^"'\\n]+)\\k<quote>)\\s*;?`, 'uy');

const kImport = 'globalThis[Symbol.for("cube.import")]';

// `const` declarations that bind what the import declaration would.
function declaration({ bare, first, space, names, from }) {
  const specifier = JSON.stringify(bare ?? from);
  if (bare !== undefined) return `await ${kImport}(${specifier});`;
  const bindings = [];
  if (first) bindings.push(`default: ${first}`);
  for (const name of (names ?? '').split(',').map((each) => each.trim()).filter(Boolean)) {
    bindings.push(name.replace(/\s+as\s+/, ': '));
  }
  if (!space) return `const { ${bindings.join(', ')} } = await ${kImport}(${specifier});`;
  const rest = first ? ` const { default: ${first} } = ${space};` : '';
  return `const ${space} = await ${kImport}(${specifier});${rest}`;
}

// `code` with import declarations and import() as calls of a function of the worker's. Line numbers
// stay.
function rewriteImports(code) {
  if (!code.includes('import')) return code;
  let out = '';
  let copied = 0;
  const replace = (start, end, text) => {
    out += code.slice(copied, start) + text;
    copied = end;
    return end;
  };
  walk(code, (word, start) => {
    if (word !== 'import') return undefined;
    if (/^import\s*\(/.test(code.slice(start, start + 64))) {
      return replace(start, start + word.length, kImport);
    }
    kDeclaration.lastIndex = start;
    const match = kDeclaration.exec(code);
    if (match === null || !(match.groups.bare || match.groups.first || match.groups.space ||
                            match.groups.names !== undefined)) {
      return undefined;
    }
    const end = start + match[0].length;
    const lines = match[0].split('\n').length - 1;
    return replace(start, end, declaration(match.groups) + '\n'.repeat(lines));
  });
  return out + code.slice(copied);
}

module.exports = { rewriteImports };
