// What callbacks tell, and who waits for it: `until` is kept when its condition is true, which is
// looked at now and whenever something is told.
export class News {
  #waiting = new Set()

  tell() {
    for (const look of this.#waiting) look()
  }

  until(condition) {
    return new Promise((resolve, reject) => {
      const look = () => {
        try {
          const found = condition()
          if (!found) return
          resolve(found)
        } catch (error) {
          reject(error)
        }
        this.#waiting.delete(look)
      }
      this.#waiting.add(look)
      look()
    })
  }
}
