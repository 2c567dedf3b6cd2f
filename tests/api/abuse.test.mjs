// Every field and parameter of every route of the document, given what it cannot be: each is refused with
// the status and the form of E2B's errors, and nothing is left of it.
import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import http from 'node:http'
import { after, before, test } from 'node:test'
import { Node } from './node.mjs'

let node, document, sandbox, values, tokens, agent
before(async () => {
  node = await Node.start({ config: '[pool]\nsize = 1\n[api]\nmax_body_bytes = 1000000\n' })
  agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  document = (await node.fetch('GET', '/openapi.json')).json
  sandbox = await node.create('base', { timeoutMs: 3600_000 })
  const [{ teamID }] = (await node.fetch('GET', '/teams')).json
  const [{ id: nodeID }] = (await node.fetch('GET', '/nodes')).json
  const build = (await node.fetch('POST', '/v3/templates', { body: { name: 'abused' } })).json
  const volume = (await node.fetch('POST', '/volumes', { body: { name: 'abused' } })).json
  values = { sandboxID: sandbox.sandboxId, templateID: 'abused', alias: 'base', buildID: build.buildID, teamID, nodeID,
    hash: 'a'.repeat(64), volumeID: volume.volumeID, apiKeyID: 'none', accessTokenID: 'none', secretID: 'none', file: 'app.js' }
  tokens = { VolumeToken: { authorization: `Bearer ${volume.token}` } }
})
after(async () => { agent.destroy(); await node.stop() })

// Text that stands for itself in a body, as JSON.stringify() has no way to say it.
class Raw { constructor(text) { this.text = text } }
function encode(value) {
  if (value instanceof Raw) return value.text
  if (Array.isArray(value)) return `[${value.map(encode).join(',')}]`
  if (value && typeof value === 'object') {
    return `{${Object.entries(value).map(([key, each]) => `${JSON.stringify(key)}:${encode(each)}`).join(',')}}`
  }
  return JSON.stringify(value)
}

const resolve = (schema) => schema.$ref ? document.components.schemas[schema.$ref.split('/').pop()] : schema

// One that the schema takes, of what it has to have.
function valid(schema, name) {
  schema = resolve(schema)
  if (schema.enum) return schema.enum[0]
  switch (schema.type) {
    case 'string': return { templateID: 'base', fromTemplate: 'nobody', path: '/x', metric: 'x' }[name] ?? 'x'
    case 'integer': return Math.max(schema.minimum ?? 0, 60 < (schema.maximum ?? 60) ? 60 : 0)
    case 'boolean': return true
    case 'array': return schema.minItems ? [valid(schema.items)] : []
    default: return Object.fromEntries((schema.required ?? []).map((each) => [each, valid(schema.properties[each], each)]))
  }
}

// What a value of that schema cannot be: pairs of a name and a value.
function* wrong(schema) {
  schema = resolve(schema)
  const others = { string: [5, true, {}, []], integer: ['5', true, {}, [], 1.5, new Raw('1e400'), new Raw('-1e400'), new Raw('1e-5')],
    boolean: ['true', 1, 0, {}, []], array: [{}, 'x', 5, true], object: [[], 'x', 5, true] }[schema.type]
  for (const each of others) yield [`${schema.type} as ${encode(each)}`, each]
  if (schema.enum) yield ['another word', schema.type === 'boolean' ? !schema.enum[0] : 'no-such-word']
  switch (schema.type) {
    case 'string':
      yield ['a zero byte', 'a\0b']
      if (schema.maxLength) yield ['too long', 'x'.repeat(schema.maxLength + 1)]
      if (schema.minLength) yield ['too short', '']
      if (schema.pattern) yield ['of other characters', '☃ !']
      break
    case 'integer':
      if (schema.minimum !== undefined) yield ['too small', new Raw(`${BigInt(schema.minimum) - 1n}`)]
      if (schema.maximum !== undefined) yield ['too great', new Raw(`${BigInt(schema.maximum) + 1n}`)]
      yield ['far too great', new Raw('9'.repeat(40))]
      break
    case 'array':
      if (schema.minItems) yield ['too few', []]
      if (schema.maxItems) yield ['too many', Array.from({ length: schema.maxItems + 1 }, () => valid(schema.items))]
      yield ['a null in it', [null]]
      for (const [what, each] of wrong(schema.items)) yield [`in it, ${what}`, [valid(schema.items), each]]
      break
    case 'object':
      for (const [name, inner] of Object.entries(schema.properties ?? {})) {
        const base = valid(schema)
        for (const [what, each] of wrong(inner)) yield [`.${name}: ${what}`, { ...base, [name]: each }]
      }
      for (const name of schema.required ?? []) {
        const { [name]: gone, ...rest } = valid(schema)
        yield [`no .${name}`, rest]
        yield [`.${name}: null`, { ...rest, [name]: null }]
      }
      if (schema.additionalProperties) {
        for (const [what, each] of wrong(schema.additionalProperties)) yield [`[x]: ${what}`, { x: each }]
        yield ['[x]: null', { x: null }]
        yield ['too many', Object.fromEntries(Array.from({ length: schema.maxProperties + 1 }, (_, i) => [`k${i}`, '']))]
      }
  }
}

function* operations() {
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      yield { name: `${method.toUpperCase()} ${path}`, method: method.toUpperCase(), path, operation }
    }
  }
}
const fill = (path, replaced = {}) =>
  path.replaceAll(/{(\w+)}/g, (_, name) => replaced[name] ?? encodeURIComponent(values[name]))
const query = (fields) => Object.entries(fields).map(([name, value]) => `${name}=${value}`).join('&')
const queryOf = (operation) => Object.fromEntries((operation.parameters ?? [])
  .filter((each) => each.in === 'query' && each.required).map((each) => [each.name, encodeURIComponent(valid(each.schema, each.name))]))
const bodyOf = (operation) => operation.requestBody?.content['application/json']?.schema

// Bytes as they are: fetch() would make them good ones.
function send(method, target, body, headers = {}) {
  return new Promise((done, failed) => {
    const [host, port] = node.address.split(':')
    const request = http.request({ agent, host, port, method, path: target, headers: { 'content-type': 'application/json', ...headers,
      ...(body !== undefined && { 'content-length': Buffer.byteLength(body) }) } }, async (answer) => {
      const pieces = []
      for await (const piece of answer) pieces.push(piece)
      done({ status: answer.statusCode, type: answer.headers['content-type'], text: Buffer.concat(pieces).toString() })
    })
    request.on('error', failed)
    request.end(body)
  })
}
function check(answer, statuses, what) {
  assert.ok(statuses.includes(answer.status), `${what}: ${answer.status} ${answer.text.slice(0, 200)}`)
  assert.equal(answer.type, 'application/json', what)
  const { code, message } = JSON.parse(answer.text)
  assert.equal(code, answer.status, what)
  assert.ok(typeof message === 'string' && message.length > 0 && message.length < 2000, what)
}
function headersOf(operation) {
  return Object.assign({}, ...(operation.security ?? []).map((each) => tokens[Object.keys(each)[0]]))
}
const isDone = ({ operation }) => !operation['x-unsupported'] && !operation.security?.some((each) => 'Signature' in each)

test('fields of bodies', async () => {
  let count = 0
  for (const { name, method, path, operation } of [...operations()].filter(isDone)) {
    const schema = bodyOf(operation)
    if (!schema) continue
    const target = `${fill(path)}?${query(queryOf(operation))}`
    for (const [what, body] of wrong(schema)) {
      check(await send(method, target, encode(body), headersOf(operation)), [400], `${name} ${what}`)
      count++
    }
  }
  assert.ok(count > 500, `${count}`)
})

test('bodies that are none', async () => {
  const deep = '{"x":'.repeat(40) + '1' + '}'.repeat(40)
  const bodies = ['null', '5', '"x"', '{', '{"x":1,}', '{"x":1}{"y":2}', "{'x':1}", '{"x":NaN}', '{"x":\n', '\ufeff{}', deep, '[['.repeat(10000),
    Buffer.from('{"x":"\xff"}', 'latin1'), Buffer.from('{"\xc3\x28":1}', 'latin1'), Buffer.from('{"x":"\xed\xa0\x80"}', 'latin1'),
    '{"x":"\\ud800"}', '{"x":"\\u12"}', '{"x":"a\nb"}', Buffer.from([0x7b, 0, 0x7d])]
  for (const { name, method, path, operation } of [...operations()].filter(isDone)) {
    if (!bodyOf(operation)) continue
    const target = `${fill(path)}?${query(queryOf(operation))}`
    for (const body of bodies) {
      check(await send(method, target, body, headersOf(operation)), [400], `${name} ${body.toString('latin1').slice(0, 40)}`)
    }
    if (operation.requestBody.required) check(await send(method, target, '', headersOf(operation)), [400], `${name} no body`)
    check(await send(method, target, ' '.repeat(1_000_001), headersOf(operation)), [413], `${name} too much`)
  }
})

test('fields of queries', async () => {
  const wrongOf = {
    integer: ({ minimum, maximum }) => ['', 'x', '1.5', '%201', '1%20', '0x1', '1e3', '+1', '--1', '%00', '%ff', '%E2%98%83', '9'.repeat(40),
      `${BigInt(minimum) - 1n}`, `${BigInt(maximum) + 1n}`],
    boolean: () => ['', 'x', '1', 'TRUE', 'true%00', '%ff'],
    string: (schema) => [
      ...(schema.enum ? ['no-such-word', 'x', '%ff', schema.enum[0] + '%00'] : []),
      ...(schema.pattern ? ['%E2%98%83', 'a%20b'] : []),
      ...(schema.format === 'date-time' ? ['', 'yesterday', '2024', '2024-13-01T00:00:00Z', '%ff', '99999999999999'] : []),
      ...(schema.minLength ? [''] : []), ...(schema.maxLength ? ['x'.repeat(schema.maxLength + 1)] : [])],
  }
  for (const { name, method, path, operation } of [...operations()].filter(isDone)) {
    for (const { name: field, in: place, schema, required } of operation.parameters ?? []) {
      if (place !== 'query') continue
      const others = queryOf(operation)
      if (required) {
        const { [field]: gone, ...rest } = others
        check(await send(method, `${fill(path)}?${query(rest)}`, undefined, headersOf(operation)), [400], `${name} no ${field}`)
      }
      for (const value of wrongOf[schema.type](schema)) {
        const target = `${fill(path)}?${query({ ...others, [field]: value })}`
        check(await send(method, target, undefined, headersOf(operation)), [400], `${name} ${field}=${value.slice(0, 40)}`)
      }
    }
    for (const bad of ['%', '%zz', 'a=%1', 'a=%', Array.from({ length: 101 }, (_, i) => `f${i}=1`).join('&')]) {
      check(await send(method, `${fill(path)}?${bad}`, undefined, headersOf(operation)), [400], `${name} ?${bad.slice(0, 20)}`)
    }
  }
  for (const token of ['x', '%ff', 'MTIz', 'eDp5', '!!!!']) {
    for (const list of ['/v2/sandboxes', '/snapshots']) check(await send('GET', `${list}?nextToken=${token}`), [400], `${list} ${token}`)
  }
  check(await send('GET', `/sandboxes/metrics?sandbox_ids=${Array(101).fill('x').join(',')}`), [400], 'too many ids')
})

test('variables of paths', async () => {
  const odd = ['none', '..%2f..%2fetc', '%2e%2e', '%ff', '%E2%98%83', 'x'.repeat(3000), '%27%22%3b--', 'a%20b', '*', '0', '-1', 'a%0d%0ab', ':', '%2f']
  for (const { name, method, path, operation } of [...operations()].filter(isDone)) {
    for (const [, variable] of path.matchAll(/{(\w+)}/g)) {
      const body = bodyOf(operation) ? encode(valid(bodyOf(operation))) : undefined
      for (const value of odd) {
        const answer = await send(method, `${fill(path, { [variable]: value })}?${query(queryOf(operation))}`, body, headersOf(operation))
        check(answer, [400, 401, 404], `${name} ${variable}=${value.slice(0, 40)}`)
      }
      check(await send(method, fill(path, { [variable]: '%zz' }), body), [400], `${name} ${variable}=%zz`)
      check(await send(method, fill(path, { [variable]: 'a%00b' }), body), [400], `${name} ${variable} has a zero byte`)
    }
  }
})

test('methods that a route does not have', async () => {
  for (const path of Object.keys(document.paths)) {
    for (const method of ['OPTIONS', 'TRACE', 'PROPFIND', 'M-SEARCH']) check(await send(method, fill(path)), [405], `${method} ${path}`)
  }
})

// The last one: all that has been refused has left nothing.
test('nothing is left of it', async () => {
  const list = (await node.fetch('GET', '/v2/sandboxes')).json
  assert.deepEqual(list.map((each) => [each.sandboxID, each.state]), [[sandbox.sandboxId, 'running']])
  assert.equal((await sandbox.commands.run('echo unharmed')).stdout, 'unharmed\n')
  assert.deepEqual((await node.fetch('GET', '/snapshots')).json, [])
  assert.deepEqual((await node.fetch('GET', '/volumes')).json.map((each) => each.name), ['abused'])
  assert.deepEqual((await node.fetch('GET', '/api-keys')).json, [])
  assert.deepEqual((await node.fetch('GET', '/templates')).json.map((each) => each.templateID).sort(), ['abused', 'base'])
  const status = await node.fetch('GET', `/templates/abused/builds/${values.buildID}/status`)
  assert.equal(status.json.status, 'waiting')
  const { text } = await node.fetch('GET', '/metrics')
  assert.ok(!/cube_http_answers_total\{status="5/.test(text), text.match(/cube_http_answers_total.*/g).join('\n'))
  const descriptors = (await readdir(`/proc/${node.pid}/fd`)).length
  assert.ok(descriptors < 100, `${descriptors} descriptors`)
})
