// Every public method that the packages' types declare is called by some test: a new version of a package
// with more of them fails here.
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'

// What tests call: the file's text without what is only said of it.
const folder = process.env.CUBE_TESTS
const texts = ['api', 'e2b', 'code_interpreter'].flatMap((name) => readdirSync(path.join(folder, name))
  .filter((file) => /test\.mjs$/.test(file) && file !== 'methods.test.mjs')
  .map((file) => readFileSync(path.join(folder, name, file), 'utf8')))
const called = texts.join('\n').replaceAll(/^\s*\/\/.*$/gm, '')

// The public methods and getters of a class or interface in a package's types: [name, whether it is static].
function methodsOf(types, kind) {
  const begin = types.search(new RegExp(`^(export )?(declare )?(abstract )?${kind}\\b[^\\n]*\\{`, 'm'))
  assert.notEqual(begin, -1, kind)
  const body = types.slice(begin, types.indexOf('\n}', begin))
  const found = [...body.matchAll(/^ {2}((?:static |get |abstract |async )*)(\w+)(?:<[^\n]*?>)?\(/gm)]
    .filter(([, , name]) => name !== 'constructor')
    .map(([, words, name]) => `${words.includes('static') ? 'static ' : ''}${words.includes('get') ? 'get ' : ''}${name}`)
  return [...new Set(found)]
}

// Where tests have objects of a class: what stands before the dot.
const object = String.raw`(?<![.\w])(?!Sandbox|Template|Volume|Secret)[a-z]\w*`
const classes = {
  e2b: {
    'class Sandbox': object, 'class SandboxApi': object, 'class Commands': 'commands', 'class CommandHandle': object,
    'class Filesystem': 'files', 'class WatchHandle': object, 'class Pty': 'pty', 'class Git': 'git',
    'class Volume': String.raw`(?:volume|thief|same)`, 'class Secret': 'secret', 'class Paginator': object,
    'interface TemplateFromImage': String.raw`[)\]]\s*`, 'interface TemplateBuilder': String.raw`[)\]]\s*`,
    'class TemplateBase': String.raw`[)\]]\s*`,
  },
  '@e2b/code-interpreter': { 'class Sandbox': object },
}
// Of the node's own: their statics, by the class's name.
const names = { 'class SandboxApi': 'Sandbox', 'class TemplateBase': 'Template' }

const packages = { e2b: process.env.E2B_PACKAGES, '@e2b/code-interpreter': process.env.CODE_PACKAGES }
for (const [name, kinds] of Object.entries(classes)) {
  test(`each method of ${name} has a test`, () => {
    const types = readFileSync(path.join(packages[name], 'node_modules', name, 'dist/index.d.ts'), 'utf8')
    const missing = []
    let count = 0
    for (const [kind, before] of Object.entries(kinds)) {
      for (const method of methodsOf(types, kind)) {
        const [word, ...last] = method.split(' ').reverse()
        const where = last.includes('static') ? names[kind] ?? kind.split(' ')[1] : before
        const after = last.includes('get') ? String.raw`\b` : String.raw`\(`
        ++count
        if (!new RegExp(`${where}\\.${word}${after}`).test(called)) missing.push(`${kind} ${method}`)
      }
    }
    assert.deepEqual(missing, [])
    assert.ok(count > (name === 'e2b' ? 150 : 4), `${count}`)
  })
}
