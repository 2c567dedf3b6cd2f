#ifndef CUBE_POOL_EVENTS_H_
#define CUBE_POOL_EVENTS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>

namespace cube::pool {

// What happens on the node, told as it happens, each a JSON object in a line:
//   {"time_ms":T,"event":"sandbox","id":ID,"state":S[,"reason":R]}   "state" may also be "gone"
//   {"time_ms":T,"event":"template","name":N,"change":C}             added, rebuilt, removed
//   {"time_ms":T,"event":"zygote","template":N,"change":C[,"reason":R]}  ready, ended
//   {"time_ms":T,"event":"node","change":C}                          draining, reloaded
// Whoever subscribes hears what comes from then on. On one thread.
class Events {
 public:
  using Listener = std::function<void(const std::string& line)>;

  uint64_t Subscribe(Listener listener);
  void Unsubscribe(uint64_t subscription);

  void Sandbox(const std::string& id, const char* state, const std::string& reason = "");
  void Template(const std::string& name, const char* change);
  void Zygote(const std::string& name, const char* change, const std::string& reason = "");
  void Node(const char* change);

 private:
  void Tell(const std::string& line);

  std::map<uint64_t, Listener> listeners_;
  uint64_t next_ = 1;
};

// Milliseconds since 1970.
int64_t WallClockMs();

}  // namespace cube::pool

#endif  // CUBE_POOL_EVENTS_H_
