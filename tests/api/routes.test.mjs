// Routes that the SDK's Sandbox and Template do not use: volumes, keys, teams, nodes, numbers.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readdir } from 'node:fs/promises'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { e2b, Node } from './node.mjs'

const { Volume } = e2b
let node
before(async () => {
  node = await Node.start({ config: '[pool]\nsize = 1\n' })
  process.env.E2B_VOLUME_API_URL = node.url
})
after(() => node.stop())

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

test('the document, health and numbers', async () => {
  assert.deepEqual((await node.fetch('GET', '/health')).json, { status: 'ok' })
  assert.deepEqual((await node.fetch('GET', '/ready')).json, { status: 'ready' })
  const document = (await node.fetch('GET', '/openapi.json')).json
  assert.equal(document.openapi, '3.0.3')
  assert.ok(Object.keys(document.paths).length > 50)
  await (await node.create()).kill()
  const { text, headers } = await node.fetch('GET', '/metrics')
  assert.match(headers.get('content-type'), /^text\/plain; version=0\.0\.4/)
  assert.match(text, /^cube_creates_total 1$/m)
  assert.match(text, /^cube_create_seconds_bucket\{le="\+Inf"\} 1$/m)
  assert.match(text, /^cube_create_seconds_count 1$/m)
  assert.match(text, /^cube_http_answers_total\{status="201"\} 1$/m)
  assert.match(text, /^cube_pool_parked\{template="base"\} \d+$/m)
})

test('what nobody knows, and what is known and not done', async () => {
  for (const target of ['/no/such', '/sandboxes/', '/v4/templates', '/volumecontent/x', '//sandboxes']) {
    const { status, json } = await node.fetch('GET', target)
    assert.deepEqual([status, json.code], [404, 404], target)
  }
  const wrong = await node.fetch('PATCH', '/sandboxes')
  assert.equal(wrong.status, 405)
  assert.equal(wrong.headers.get('allow'), 'POST, GET')
  for (const [method, target] of [['GET', '/secrets'], ['POST', '/events/webhooks'], ['POST', '/templates'],
    ['POST', '/admin/teams/x/builds/cancel']]) {
    const { status, json } = await node.fetch(method, target)
    assert.deepEqual([status, json.code], [501, 501], target)
    assert.ok(json.message.length > 20, target)
  }
})

test('a volume: files both ways, folders, modes', async () => {
  const volume = await Volume.create('my-volume', node.options)
  assert.match(volume.volumeId, uuid)
  assert.deepEqual(await Volume.list(node.options), [{ volumeId: volume.volumeId, name: 'my-volume' }])
  await assert.rejects(Volume.create('my-volume', node.options), /409/)
  const same = await Volume.connect(volume.volumeId, node.options)
  assert.deepEqual([same.name, same.token], ['my-volume', volume.token])
  await assert.rejects(volume.writeFile('/a/b.txt', 'x'), e2b.VolumePathNotFoundError)
  const written = await volume.writeFile('/a/b.txt', 'grüße', { force: true, mode: 0o600 })
  assert.deepEqual([written.name, written.path, written.type, written.size, written.mode], ['b.txt', '/a/b.txt', 'file', 7, 0o600])
  assert.ok(Math.abs(written.mtime - Date.now()) < 60_000)
  assert.equal(await volume.readFile('/a/b.txt'), 'grüße')
  await volume.writeFile('a/b.txt', '')
  assert.equal(await volume.readFile('a/b.txt'), '')
  const large = randomBytes(9 << 20)
  await volume.writeFile('/large', new Blob([large]).stream())
  assert.ok(Buffer.from(await volume.readFile('/large', { format: 'bytes' })).equals(large))
  let received = 0
  for await (const chunk of await volume.readFile('/large', { format: 'stream' })) received += chunk.length
  assert.equal(received, large.length)
  assert.equal((await volume.makeDir('/folder')).type, 'directory')
  await assert.rejects(volume.makeDir('/folder'), /409/)
  await volume.makeDir('/folder/x/y', { force: true })
  const paths = async (...words) => (await volume.list(...words)).map((each) => each.path)
  assert.deepEqual(await paths('/'), ['/a', '/folder', '/large'])
  assert.deepEqual(await paths('/folder', { depth: 5 }), ['/folder/x', '/folder/x/y'])
  assert.equal((await volume.updateMetadata('/large', { mode: 0o400 })).mode, 0o400)
  assert.equal(await volume.exists('/large'), true)
  await volume.remove('/large')
  assert.equal(await volume.exists('/large'), false)
  await volume.remove('/folder')
  assert.deepEqual(await paths('/'), ['/a'])
  await assert.rejects(volume.remove('/'), /400/)
  await assert.rejects(volume.readFile('/../../node/api.db'), /400/)
  const other = await Volume.create('other', node.options)
  const thief = new Volume(volume.volumeId, 'x', other.token)
  await assert.rejects(thief.list('/'), e2b.AuthenticationError)
  await assert.rejects(thief.readFile('/a/b.txt'), e2b.AuthenticationError)
  await assert.rejects(thief.writeFile('/x', 'x'), e2b.AuthenticationError)
  await assert.rejects(thief.remove('/a'), e2b.AuthenticationError)
  assert.equal(await Volume.destroy(volume.volumeId, node.options), true)
  assert.equal(await Volume.destroy(volume.volumeId, node.options), false)
  await assert.rejects(Volume.getInfo(volume.volumeId, node.options), e2b.VolumeNotFoundError)
  await assert.rejects(volume.readFile('/a/b.txt'), e2b.VolumePathNotFoundError)
  assert.deepEqual((await readdir(path.join(node.home, 'volumes'))).sort(), [other.volumeId, 'staging', 'trash'].sort())
  assert.deepEqual(await readdir(path.join(node.home, 'volumes/staging')), [])
  await Volume.destroy(other.volumeId, node.options)
})

test('an upload that breaks off leaves nothing', async () => {
  const volume = await Volume.create('broken', node.options)
  const folder = path.join(node.home, 'volumes/staging')
  assert.deepEqual(await readdir(folder), [])
  const socket = await node.connect()
  socket.write(`PUT /volumecontent/${volume.volumeId}/file?path=/x HTTP/1.1\r\nHost: localhost\r\n` +
    `Authorization: Bearer ${volume.token}\r\nContent-Length: 1000\r\n\r\nonly this`)
  while ((await readdir(folder)).length === 0) await node.fetch('GET', '/health')
  socket.destroy()
  while ((await readdir(folder)).length > 0) await node.fetch('GET', '/health')
  assert.equal(await volume.exists('/x'), false)
  await Volume.destroy(volume.volumeId, node.options)
})

test('the team and its numbers', async () => {
  const [team] = (await node.fetch('GET', '/teams')).json
  assert.deepEqual([team.name, team.apiKey, team.isDefault], ['cube', node.options.apiKey, true])
  assert.match(team.teamID, uuid)
  let samples = []
  while (samples.length === 0) samples = (await node.fetch('GET', `/teams/${team.teamID}/metrics?start=0`)).json
  assert.deepEqual(Object.keys(samples[0]), ['timestamp', 'timestampUnix', 'concurrentSandboxes', 'sandboxStartRate'])
  const most = await node.fetch('GET', `/teams/${team.teamID}/metrics/max?metric=concurrent_sandboxes`)
  assert.ok(most.json.value >= samples[0].concurrentSandboxes)
  assert.deepEqual((await node.fetch('GET', `/teams/${team.teamID}/metrics?end=1`)).json, [])
  assert.equal((await node.fetch('GET', '/teams/other/metrics')).status, 404)
  await Promise.all([node.create(), node.create()])
  assert.deepEqual((await node.fetch('POST', `/admin/teams/${team.teamID}/sandboxes/kill`)).json, { killedCount: 2, failedCount: 0 })
  assert.deepEqual((await node.fetch('GET', '/sandboxes')).json, [])
})

test('the node', async () => {
  const [about] = (await node.fetch('GET', '/nodes')).json
  assert.deepEqual([about.status, about.version, about.sandboxCount], ['ready', '0.1', 0])
  assert.ok(about.metrics.cpuCount >= 1 && about.metrics.memoryTotalBytes > about.metrics.memoryUsedBytes)
  assert.ok(about.machineInfo.cpuModelName.length > 0 && about.metrics.disks[0].totalBytes > 0)
  const one = await node.fetch('GET', `/nodes/${about.id}`)
  assert.deepEqual([one.json.id, one.json.cachedBuilds], [about.id, ['base']])
  assert.equal((await node.fetch('GET', '/nodes/other')).status, 404)
  assert.equal((await node.fetch('POST', `/nodes/${about.id}`, { body: { status: 'ready' } })).status, 204)
})

test('keys over HTTP', async () => {
  const made = await node.fetch('POST', '/api-keys', { body: { name: 'one' } })
  assert.equal(made.status, 201)
  const { key, id, mask } = made.json
  assert.equal(mask.prefix + mask.maskedValuePrefix, key.slice(0, 8))
  assert.equal(mask.valueLength, key.length - 4)
  assert.equal((await node.fetch('GET', '/api-keys')).status, 401)
  assert.equal((await node.fetch('PATCH', `/api-keys/${id}`, { key, body: { name: 'two' } })).status, 200)
  const listed = (await node.fetch('GET', '/api-keys', { key })).json
  assert.deepEqual(listed.map((each) => [each.id, each.name, each.key]), [[id, 'two', undefined]])
  const token = await node.fetch('POST', '/access-tokens', { key, body: { name: 'old' } })
  assert.equal(token.status, 201)
  const bearer = { headers: { authorization: `Bearer ${token.json.token}` }, key: '' }
  assert.equal((await node.fetch('GET', '/teams', bearer)).json[0].apiKey, token.json.token)
  assert.equal((await node.fetch('DELETE', `/access-tokens/${token.json.id}`, { key })).status, 204)
  assert.equal((await node.fetch('GET', '/teams', bearer)).status, 401)
  assert.equal((await node.fetch('DELETE', '/api-keys/two', { key })).status, 404)
  assert.equal((await node.fetch('PATCH', `/api-keys/${token.json.id}`, { key, body: { name: 'x' } })).status, 404)
  assert.equal((await node.fetch('DELETE', `/api-keys/${id}`, { key })).status, 204)
  assert.equal((await node.fetch('GET', '/api-keys', { key })).status, 401)
})

test('a node that drains takes no more', async () => {
  node.options.apiKey = (await node.cube('key', 'create', 'last')).key
  const [{ id }] = (await node.fetch('GET', '/nodes')).json
  assert.equal((await node.fetch('POST', `/nodes/${id}`, { body: { status: 'draining' } })).status, 204)
  assert.equal((await node.fetch('GET', '/nodes')).json[0].status, 'draining')
  assert.equal((await node.fetch('GET', '/ready')).status, 503)
  assert.equal((await node.fetch('POST', '/v2/sandboxes', { body: { templateID: 'base' } })).status, 503)
  assert.equal((await node.fetch('POST', `/nodes/${id}`, { body: { status: 'ready' } })).status, 409)
})
