// A Chromium without a window, by its debugging protocol (https://chromedevtools.github.io/devtools-protocol)
// over two pipes.
import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { once } from 'node:events'

export class Browser {
  static async start() {
    const browser = new Browser()
    browser.folder = await mkdtemp('/tmp/cube-browser-')
    browser.process = spawn('chromium', ['--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
      '--remote-debugging-pipe', '--window-size=1300,900', `--user-data-dir=${browser.folder}`, 'about:blank'],
    { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] })
    const [, , , input, output] = browser.process.stdio
    browser.input = input
    browser.waiting = new Map()
    browser.listeners = new Map()
    browser.next = 1
    let held = ''
    output.setEncoding('utf8').on('data', (text) => {
      const parts = (held + text).split('\0')
      held = parts.pop()
      for (const part of parts) browser.take(JSON.parse(part))
    })
    browser.process.once('exit', () => {
      for (const { reject } of browser.waiting.values()) reject(new Error('chromium has ended'))
    })
    return browser
  }

  take({ id, result, error, method, params, sessionId }) {
    if (id === undefined) return this.listeners.get(sessionId)?.(method, params)
    const { resolve, reject } = this.waiting.get(id)
    this.waiting.delete(id)
    if (error) reject(new Error(error.message))
    else resolve(result)
  }

  call(method, params = {}, sessionId = undefined) {
    const id = this.next++
    this.input.write(JSON.stringify({ id, method, params, sessionId }) + '\0')
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }))
  }

  async open(url) {
    const { targetId } = await this.call('Target.createTarget', { url: 'about:blank' })
    const { sessionId } = await this.call('Target.attachToTarget', { targetId, flatten: true })
    const page = new Page(this, sessionId)
    this.listeners.set(sessionId, (method, params) => page.hear(method, params))
    for (const domain of ['Page', 'Runtime', 'Network', 'Log']) await page.call(`${domain}.enable`)
    await page.call('Page.navigate', { url })
    return page
  }

  async stop() {
    const ended = once(this.process, 'exit')
    this.call('Browser.close').catch(() => {})
    await ended
    await rm(this.folder, { recursive: true, force: true })
  }
}

class Page {
  complaints = []  // errors and warnings, whoever has them
  requests = []    // addresses

  constructor(browser, session) {
    this.browser = browser
    this.session = session
  }

  call(method, params) { return this.browser.call(method, params, this.session) }

  hear(method, params) {
    if (method === 'Runtime.exceptionThrown') this.complaints.push(JSON.stringify(params.exceptionDetails))
    if (method === 'Runtime.consoleAPICalled' && ['error', 'warning', 'assert'].includes(params.type)) {
      this.complaints.push(JSON.stringify(params.args))
    }
    if (method === 'Log.entryAdded' && ['error', 'warning'].includes(params.entry.level)) {
      this.complaints.push(`${params.entry.text} ${params.entry.url ?? ''}`)
    }
    if (method === 'Network.requestWillBeSent') this.requests.push(params.request.url)
  }

  // The value of a function that runs in the page, with arguments that JSON can say.
  async run(what, ...words) {
    const expression = `(${what})(...${JSON.stringify(words)})`
    const { result, exceptionDetails } = await this.call('Runtime.evaluate',
      { expression, awaitPromise: true, returnByValue: true })
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text)
    return result.value
  }

  // Waits until it is so in the page, looking whenever the page changes: what it was then.
  until(what, ...words) {
    return this.run(`(...words) => new Promise((resolve) => {
      const look = () => {
        const value = (${what})(...words)
        if (!value) return false
        watch.disconnect()
        resolve(value)
        return true
      }
      const watch = new MutationObserver(look)
      if (look()) return
      watch.observe(document, { subtree: true, childList: true, attributes: true, characterData: true })
    })`, ...words)
  }

  // A click of the mouse in the middle of the element, which has to be there and in nobody's shadow.
  async click(selector) {
    await this.until((text) => { const it = document.querySelector(text); return it && !it.disabled && it.offsetParent !== null }, selector)
    const { x, y, there } = await this.run((text) => {
      const it = document.querySelector(text)
      it.scrollIntoView({ block: 'center' })
      const box = it.getBoundingClientRect()
      const x = box.x + box.width / 2, y = box.y + box.height / 2
      const there = document.elementFromPoint(x, y)
      return { x, y, there: it.contains(there) ? undefined : String(there?.outerHTML ?? null).slice(0, 200) }
    }, selector)
    if (there !== undefined) throw new Error(`${selector} is covered at ${x},${y} by ${there}`)
    for (const type of ['mouseMoved', 'mousePressed', 'mouseReleased']) {
      await this.call('Input.dispatchMouseEvent', { type, x, y, button: type === 'mouseMoved' ? 'none' : 'left', clickCount: 1 })
    }
  }

  async type(text) {
    for (const character of text) {
      const enter = character === '\n'
      const key = enter ? { key: 'Enter', code: 'Enter', windowsVirtualKeyCode: 13, text: '\r' } : { key: character, text: character }
      await this.call('Input.dispatchKeyEvent', { type: 'keyDown', ...key })
      await this.call('Input.dispatchKeyEvent', { type: 'keyUp', ...key, text: undefined })
    }
  }
}
