import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { e2b, Node } from './node.mjs'

let node
before(async () => { node = await Node.start({ config: '[pool]\nsize = 1\n[api]\nrequests_per_second = 50\n' }) })
after(() => node.stop())

test('without keys: programs of this host, not pages of its browsers', async () => {
  assert.equal((await node.fetch('GET', '/sandboxes', { key: '' })).status, 200)
  assert.equal((await node.fetch('GET', '/sandboxes', { headers: { origin: 'http://evil.test' } })).status, 403)
  const socket = await node.connect()
  socket.end('GET /sandboxes HTTP/1.1\r\nHost: rebound.evil.test\r\nConnection: close\r\n\r\n')
  let answer = ''
  for await (const bytes of socket) answer += bytes
  assert.match(answer, /^HTTP\/1.1 403 /)
})

test('with the first key every route but the public ones needs one', async () => {
  const { key, id } = await node.cube('key', 'create', 'first')
  assert.match(key, /^e2b_[0-9a-f]{40}$/)
  const { paths } = (await node.fetch('GET', '/openapi.json', { key: '' })).json
  const open = []
  for (const [template, methods] of Object.entries(paths)) {
    const target = template.replaceAll(/{\w+}/g, 'x')
    for (const [method, { security }] of Object.entries(methods)) {
      if (security?.length === 0) {
        open.push(target)
        continue
      }
      for (const wrong of ['', 'e2b_' + '0'.repeat(40), key.slice(0, -1), key + '0', key.toUpperCase()]) {
        const { status, json } = await node.fetch(method.toUpperCase(), target, { key: wrong })
        // An upload's address is signed; it has no key.
        const expected = target.startsWith('/uploads/') ? 403 : 401
        assert.deepEqual([status, json.code], [expected, expected], `${method} ${target} ${wrong}`)
      }
    }
  }
  assert.deepEqual(open, ['/health', '/ready', '/openapi.json', '/', '/dashboard/x'])
  for (const [method, target] of [['GET', '/no/such/route'], ['PATCH', '/sandboxes'], ['GET', '/dashboard']]) {
    assert.equal((await node.fetch(method, target, { key: '' })).status, 401)
  }
  for (const target of ['/health', '/ready', '/', '/dashboard/app.js']) assert.equal((await node.fetch('GET', target, { key: '' })).status, 200)
  assert.equal((await node.fetch('GET', '/sandboxes', { key })).status, 200)
  assert.equal((await node.fetch('GET', '/sandboxes', { key: '', headers: { authorization: `Bearer ${key}` } })).status, 200)
  await assert.rejects(node.create(), e2b.AuthenticationError)
  node.options.apiKey = key
  const sandbox = await node.create()
  await sandbox.kill()
  // It is not kept: neither the store nor the log of what was done has it.
  const { keys } = await node.cube('key', 'ls')
  assert.deepEqual(keys.map((each) => [each.id, each.name, each.key]), [[id, 'first', undefined]])
  for (const file of ['api.db', 'api.db-wal', 'audit.log']) {
    assert.ok(!(await readFile(path.join(node.home, 'node', file), 'latin1')).includes(key.slice(10)), file)
  }
  const audit = (await readFile(path.join(node.home, 'node/audit.log'), 'utf8')).trim().split('\n').map(JSON.parse)
  assert.ok(audit.some((each) => each.key === id && each.path === '/v2/sandboxes' && each.status === 201))
  assert.ok(audit.some((each) => each.status === 401))
})

test('a revoked key is not valid, and the last one does not open the door again', async () => {
  const { key, id } = await node.cube('key', 'create', 'second')
  assert.equal((await node.fetch('GET', '/sandboxes', { key })).status, 200)
  await node.cube('key', 'revoke', id)
  assert.equal((await node.fetch('GET', '/sandboxes', { key })).status, 401)
  assert.equal((await node.fetch('GET', '/sandboxes', { key: '' })).status, 401)
})

test('more than a key may is 429, and another one is not hindered', async () => {
  const { key } = await node.cube('key', 'create', 'busy')
  const answers = await Promise.all(Array.from({ length: 200 }, () => node.fetch('GET', '/snapshots', { key })))
  const refused = answers.filter((each) => each.status === 429)
  assert.ok(refused.length > 0)
  assert.equal(refused[0].headers.get('retry-after'), '1')
  assert.equal(refused[0].json.code, 429)
  assert.equal((await node.fetch('GET', '/snapshots')).status, 200)
})

test('keys survive cubed', async () => {
  await node.cube('down')
  await node.up()
  node.options.apiKey = (await node.cube('key', 'create', 'later')).key
  assert.equal((await node.fetch('GET', '/sandboxes')).status, 200)
  assert.equal((await node.cube('key', 'ls')).keys.length, 4)
})
