import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { after, before, test } from 'node:test'
import { e2b, Machine, News } from './machine.mjs'

let machine, sandbox
before(async () => {
  machine = await Machine.start()
  sandbox = machine.sandbox()
})
after(() => machine.stop())

const digest = (bytes) => createHash('sha256').update(bytes).digest('hex')

test('files are written and read, as text and as bytes', async () => {
  const info = await sandbox.files.write('folder/täxt.txt', 'grüße')
  assert.equal(info.path, '/home/user/folder/täxt.txt')
  assert.equal(await sandbox.files.read('folder/täxt.txt'), 'grüße')
  await sandbox.files.write('/home/user/empty', '')
  assert.equal(await sandbox.files.read('/home/user/empty'), '')
  const bytes = randomBytes(100000)
  await sandbox.files.write('bytes', bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length))
  assert.equal(digest(await sandbox.files.read('bytes', { format: 'bytes' })), digest(bytes))
  const blob = await sandbox.files.read('bytes', { format: 'blob' })
  assert.equal(blob.size, bytes.length)
  await assert.rejects(sandbox.files.read('nowhere'), e2b.NotFoundError)
})

test('several files in one request', async () => {
  const infos = await sandbox.files.write([
    { path: 'many/one', data: '1' }, { path: '/tmp/many/two', data: '2' }, { path: 'many/a b', data: '3' }])
  assert.deepEqual(infos.map((each) => each.path),
    ['/home/user/many/one', '/tmp/many/two', '/home/user/many/a b'])
  assert.equal(await sandbox.files.read('/tmp/many/two'), '2')
  const others = await sandbox.files.writeFiles([
    { path: 'many/four', data: new Blob(['4']) }, { path: 'five', data: new TextEncoder().encode('5').buffer }])
  assert.deepEqual(others.map((each) => [each.name, each.path, each.type]),
    [['four', '/home/user/many/four', 'file'], ['five', '/home/user/five', 'file']])
  await sandbox.files.write('rooted', 'x', { user: 'root' })
  assert.equal((await sandbox.files.getInfo('/root/rooted', { user: 'root' })).owner, 'root')
  assert.equal(await sandbox.files.exists('rooted', { user: 'root' }), true)
})

test('streams and gzip', async () => {
  const text = 'line\n'.repeat(200000)
  const stream = new Blob([text]).stream()
  await sandbox.files.write('streamed', stream, { useOctetStream: true })
  assert.equal(await sandbox.files.read('streamed'), text)
  await sandbox.files.write('gzipped', text, { gzip: true })
  assert.equal((await sandbox.commands.run('wc -c < gzipped')).stdout, '1000000\n')
  let received = 0
  for await (const chunk of await sandbox.files.read('streamed', { format: 'stream' })) received += chunk.length
  assert.equal(received, text.length)
  assert.equal(await sandbox.files.read('streamed', { gzip: true }), text)
})

test('32 MiB up and down', async () => {
  const bytes = randomBytes(32 << 20)
  await sandbox.files.write('large', new Blob([bytes]))
  const sum = await sandbox.commands.run('sha256sum large; stat -c "%U %a" large')
  assert.equal(sum.stdout, `${digest(bytes)}  large\nuser 644\n`)
  assert.equal(digest(await sandbox.files.read('large', { format: 'bytes' })), digest(bytes))
})

test('folders, listings, information', async () => {
  assert.equal(await sandbox.files.makeDir('tree/b/c'), true)
  assert.equal(await sandbox.files.makeDir('tree/b'), false)
  await sandbox.files.write('tree/a', 'x')
  await sandbox.files.write('tree/b/d', 'xy')
  const names = async (options) => (await sandbox.files.list('tree', options)).map((each) => each.path)
  assert.deepEqual(await names(), ['/home/user/tree/a', '/home/user/tree/b'])
  assert.deepEqual(await names({ depth: 3 }),
    ['/home/user/tree/a', '/home/user/tree/b', '/home/user/tree/b/c', '/home/user/tree/b/d'])
  const info = await sandbox.files.getInfo('tree/b/d')
  assert.deepEqual([info.name, info.type, info.size, info.mode, info.permissions, info.owner],
    ['d', 'file', 2, 0o644, '-rw-r--r--', 'user'])
  assert.ok(Math.abs(info.modifiedTime - Date.now()) < 600000)
  await sandbox.commands.run('ln -s tree/b/d link')
  assert.equal((await sandbox.files.getInfo('link')).symlinkTarget, '/home/user/tree/b/d')
  assert.equal(await sandbox.files.exists('tree/none'), false)
  assert.equal(await sandbox.files.exists('tree/a'), true)
  const moved = await sandbox.files.rename('tree/a', 'other/place')
  assert.equal(moved.path, '/home/user/other/place')
  await sandbox.files.remove('tree')
  assert.equal(await sandbox.files.exists('tree'), false)
  await assert.rejects(sandbox.files.list('tree'), e2b.NotFoundError)
})

test('metadata', async () => {
  const written = await sandbox.files.write('meta', 'x', { metadata: { author: 'me' } })
  assert.deepEqual(written.metadata, { author: 'me' })
  assert.deepEqual((await sandbox.files.getInfo('meta')).metadata, { author: 'me' })
  await sandbox.files.write('meta', 'y')
  assert.deepEqual((await sandbox.files.getInfo('meta')).metadata ?? {}, {})
})

test('watching', async () => {
  await sandbox.files.makeDir('watched')
  const events = []
  const news = new News()
  const exits = []
  const handle = await sandbox.files.watchDir('watched', (event) => { events.push(event); news.tell() },
    { recursive: true, includeEntry: true, onExit: (error) => { exits.push(error); news.tell() } })
  const until = (type, name) =>
    news.until(() => events.find((each) => each.type === type && each.name === name))
  await sandbox.files.write('watched/file', 'x')
  const written = await until(e2b.FilesystemEventType.WRITE, 'file')
  assert.equal(written.entry.path, '/home/user/watched/file')
  await sandbox.files.makeDir('watched/new/nested')
  await sandbox.files.write('watched/new/nested/file', 'x')
  await until(e2b.FilesystemEventType.WRITE, 'new/nested/file')
  await sandbox.files.rename('watched/file', 'watched/renamed')
  await until(e2b.FilesystemEventType.RENAME, 'file')
  await sandbox.files.remove('watched/renamed')
  await until(e2b.FilesystemEventType.REMOVE, 'renamed')
  await sandbox.commands.run('chmod 600 watched/new/nested/file; touch watched/made')
  await until(e2b.FilesystemEventType.CHMOD, 'new/nested/file')
  await until(e2b.FilesystemEventType.CREATE, 'made')
  await handle.stop()
  await news.until(() => exits.length > 0)
  // One that its time limit ends.
  await sandbox.files.watchDir('watched', () => {},
    { timeoutMs: 500, onExit: (error) => { exits.push(error); news.tell() } })
  await news.until(() => exits.length > 1)
  await assert.rejects(sandbox.files.watchDir('nowhere', () => {}), e2b.NotFoundError)
})

test('ports of the guest by HTTP', async () => {
  await sandbox.files.write('/tmp/www/index.html', 'from the guest')
  const news = new News()
  const server = await sandbox.commands.run(
    'exec python3 -u -m http.server 8123 --bind 127.0.0.1 --directory /tmp/www',
    { background: true, timeoutMs: 0, onStdout: () => news.tell() })
  await news.until(() => server.stdout !== '')
  for (let i = 0; i < 3; ++i) {
    const answer = await machine.fetch(8123, '/index.html')
    assert.equal(await answer.text(), 'from the guest')
  }
  await server.kill()
  await assert.rejects(machine.fetch(8124, '/'))
})

// The last: from here on there is a token.
test('the access token and signed URLs', async () => {
  const token = await machine.makeToken()
  const stranger = machine.sandbox({ envdAccessToken: undefined })
  await assert.rejects(stranger.commands.run('true'), e2b.AuthenticationError)
  const secure = machine.sandbox({ envdAccessToken: token })
  assert.equal((await secure.commands.run('echo $FROM_INIT')).stdout, 'yes\n')
  await secure.files.write('signed', 'content')
  const download = await secure.downloadUrl('signed', { useSignatureExpiration: 600 })
  assert.equal(await (await fetch(download)).text(), 'content')
  assert.equal((await fetch(download.replace('signed', 'other'))).status, 401)
  const form = new FormData()
  form.append('file', 'uploaded')
  const upload = await secure.uploadUrl('uploaded')
  assert.equal((await fetch(upload, { method: 'POST', body: form })).status, 200)
  assert.equal(await secure.files.read('uploaded'), 'uploaded')
  const expired = await secure.downloadUrl('signed', { useSignatureExpiration: -120 })
  assert.deepEqual(await (await fetch(expired)).json(),
    { code: 401, message: 'signature is already expired' })
})
