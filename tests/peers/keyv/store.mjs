// A store of Keyv over the HTTP API of cachesvc, in the namespace `pages`. Its keys have one tag per
// Keyv namespace, so that `clear` is one invalidation.
import { EventEmitter } from 'node:events'
import http from 'node:http'

const agent = new http.Agent({ keepAlive: true })

export class Store extends EventEmitter {
  constructor (url) {
    super()
    this.base = new URL(url)
    this.opts = { url, dialect: 'http' }
    this.namespace = undefined
  }

  async get (key) {
    const answer = await this.#ask('GET', this.#path(key), [200, 404])
    return answer.status === 200 ? answer.body.toString() : undefined
  }

  async set (key, value, ttl) {
    const headers = { 'Content-Type': 'text/plain', 'Cache-Groups': `"${this.#tag()}"` }
    if (ttl) {
      const seconds = Math.ceil(ttl / 1000)
      headers['Cache-Control'] = `max-age=${seconds}, stale-while-revalidate=0, stale-if-error=0`
    }
    await this.#ask('PUT', this.#path(key), [204], headers, Buffer.from(String(value)))
    return true
  }

  async delete (key) {
    const had = await this.has(key)
    await this.#ask('DELETE', this.#path(key), [200])
    return had
  }

  async clear () {
    const body = JSON.stringify({ namespace: 'pages', tags: [this.#tag()] })
    await this.#ask('POST', '/v1/invalidations', [200], { 'Content-Type': 'application/json' }, body)
  }

  async has (key) { return (await this.get(key)) !== undefined }
  async getMany (keys) { return Promise.all(keys.map((key) => this.get(key))) }
  async setMany (entries) { return Promise.all(entries.map((one) => this.set(one.key, one.value, one.ttl))) }
  async deleteMany (keys) { return (await Promise.all(keys.map((key) => this.delete(key)))).some(Boolean) }
  async disconnect () {}

  #tag () { return `keyv-${this.namespace ?? ''}` }

  #path (key) {
    return '/v1/pages/' + encodeURIComponent((this.namespace ? this.namespace + ':' : '') + key)
  }

  #ask (method, path, expected, headers = {}, body = undefined) {
    const { hostname: host, port } = this.base
    return new Promise((resolve, reject) => {
      const request = http.request({ agent, host, port, method, path, headers }, (answer) => {
        const parts = []
        answer.on('data', (part) => parts.push(part))
        answer.on('end', () => {
          const found = { status: answer.statusCode, body: Buffer.concat(parts) }
          if (expected.includes(found.status)) resolve(found)
          else reject(new Error(`${method} ${path}: ${found.status} ${found.body}`))
        })
      })
      request.on('error', reject)
      request.end(body)
    })
  }
}
