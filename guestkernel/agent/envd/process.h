#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_PROCESS_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/unique_fd.h"
#include "guestkernel/agent/connect/rpc_error.h"
#include "guestkernel/agent/envd/context.h"
#include "guestkernel/agent/envd/settings.h"
#include "guestkernel/agent/envd/users.h"

namespace cube::agent::envd {

struct TerminalSize {
  uint16_t columns = 0;
  uint16_t rows = 0;
};

// What a process is to be, as the client says it.
struct ProcessRequest {
  std::string command;
  std::vector<std::string> arguments;  // without the command
  Variables environment;
  std::optional<std::string> directory;
  std::optional<std::string> tag;
  std::optional<TerminalSize> terminal;  // its standard streams are one
  bool has_stdin = true;                 // else it reads from nothing
};

// How a process ended.
struct ProcessEnd {
  int exit_code = 0;    // -1 if a signal ended it
  bool exited = false;  // by itself
  std::string status;   // "exit status 3", "signal: killed"
};

enum class Stream { kStdout, kStderr, kTerminal };

// A process that a client has started. It lives on when its clients leave. What it writes goes to
// those that listen at that time, and is lost if none does; it is read only as fast as the slowest
// of them takes it. Of the loop's thread.
class Process : public std::enable_shared_from_this<Process> {
 public:
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void OnOutput(Stream stream, std::string_view bytes) = 0;
    // After all output, once.
    virtual void OnEnd(const ProcessEnd& end) = 0;
    // False if it cannot take more for now; OnRoom() is to be called when it can.
    virtual bool HasRoom() const = 0;
  };
  using Done = std::function<void(connect::Outcome<bool>)>;

  // `on_end` is called when it has ended, after its listeners were told. `nothing` is a descriptor
  // of /dev/null.
  static connect::Outcome<std::shared_ptr<Process>> Start(Context* context, ProcessRequest request,
                                                          const User& user, int nothing,
                                                          std::function<void()> on_end);
  ~Process();

  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // Not if it has ended.
  void Listen(Listener* listener) { listeners_.push_back(listener); }
  void Leave(Listener* listener);
  void OnRoom();

  // Writes to its stdin, or to its terminal; `done` is called when it has taken all of it, or with
  // the error if it never will: also if there is no memory to keep it until then.
  void Write(bool to_terminal, std::string bytes, Done done);
  connect::Outcome<bool> CloseStdin();
  connect::Outcome<bool> Resize(TerminalSize size);
  connect::Outcome<bool> Signal(int number);
  // Kills it and all others of its session after so long, and then waits for nobody to close its
  // pipes.
  void KillAfter(uint64_t nanoseconds);

  const ProcessRequest& request() const { return request_; }
  pid_t pid() const { return pid_; }
  // Once it has ended.
  const std::optional<ProcessEnd>& end() const { return end_; }

 private:
  struct Source {
    UniqueFd fd;
    Stream stream = Stream::kStdout;
    bool ready = false;
    bool hung_up = false;  // nobody can write to it any more
  };
  struct Input {
    std::string bytes;
    size_t written = 0;
    Done done;
    MemoryBudget::Lease memory;
  };

  Process(Context* context, ProcessRequest request, std::function<void()> on_end)
      : context_(context), request_(std::move(request)), on_end_(std::move(on_end)) {}

  connect::Outcome<bool> Spawn(const User& user, int nothing);
  connect::Outcome<std::string> Directory(const User& user) const;
  std::vector<std::string> Environment(const User& user) const;
  connect::Outcome<UniqueFd> OpenTerminal(uid_t owner);
  connect::Outcome<bool> Watch(size_t source, UniqueFd fd, Stream stream);
  void OnSourceEvents(size_t source, uint32_t events);
  // Reads what listeners have room for.
  void Pump();
  void PumpSource(Source* source);
  // True if there is more to be read at once.
  bool ReadOnce(Source* source);
  // A shell that asks for its terminal's size and sets it again (readline does before each prompt)
  // may put back the one of before: its next output shows that it may have.
  void KeepSize();
  bool HasRoom() const;
  void CloseSource(Source* source);
  void PumpInput();
  void FailInputs(const connect::RpcError& error);
  void OnExit(int wait_status);
  void EndIfDone();
  int InputFd() const;

  Context* context_;
  ProcessRequest request_;
  std::function<void()> on_end_;
  pid_t pid_ = -1;
  // Output: stdout and stderr, or the terminal in the first, which is its input too.
  Source sources_[2];
  UniqueFd stdin_;
  bool input_watched_ = false;
  bool close_stdin_ = false;  // when all inputs are written
  std::deque<Input> inputs_;
  std::vector<Listener*> listeners_;
  bool pump_deferred_ = false;
  bool exited_ = false;   // reaped, its output may still come
  bool overdue_ = false;  // its time is over
  std::optional<ProcessEnd> coming_end_;
  std::optional<ProcessEnd> end_;
  EventLoop::TimerId deadline_ = EventLoop::kNoTimer;
  std::optional<TerminalSize> size_before_;  // that of the terminal, until it was resized
  uint64_t resized_ = 0;                     // when
};

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_PROCESS_H_
