#ifndef CUBE_GUESTKERNEL_AGENT_INTERPRETER_WORKER_H_
#define CUBE_GUESTKERNEL_AGENT_INTERPRETER_WORKER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"
#include "guestkernel/agent/interpreter/control_lines.h"
#include "guestkernel/agent/loop/event_loop.h"

namespace cube::agent::interpreter {

// Our ends of a worker's descriptors, which do not block, and its own, which do.
struct WorkerPipes {
  static Result<WorkerPipes> Create();

  UniqueFd control, output, error;
  UniqueFd its_control, its_output, its_error;
};

// A running interpreter, as its descriptors show it. Of the loop's thread.
class Worker {
 public:
  enum Stream : uint32_t { kOutput, kError };
  static constexpr size_t kStreams = 2;

  // What is done with what the worker says. No call destroys the worker, except OnGone().
  class Client : public ControlLines::Sink {
   public:
    // False while what comes cannot be taken; Resume() follows.
    virtual bool TakesMore() = 0;
    virtual void OnOutput(Stream stream, std::string_view bytes) = 0;
    // The worker has closed its control socket, so it has ended, or will be of no more use. The
    // last call, and the client may destroy the worker in it.
    virtual void OnGone() = 0;
  };

  // `loop`, `client` and the memory of `scratch`, where output is read to and of which nothing is
  // kept, outlive the worker. `pid` leads the worker's process group, 0 if OnReady() will tell.
  Worker(EventLoop* loop, std::span<char> scratch, Client* client, WorkerPipes pipes, int32_t pid);
  ~Worker();  // kills its process group

  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Begins to listen.
  Status Open();

  void SetPid(int32_t pid) { pid_ = pid; }
  // Sends a request, as soon as the worker reads.
  void Send(std::string_view request);
  void Interrupt();
  // The client takes more.
  void Resume() { Pump(); }
  // True if the last event was not sent to its end.
  bool in_line() const { return lines_.in_line(); }

 private:
  // A pipe or socket that is watched for changes only: it is read until it is empty.
  struct Source {
    UniqueFd fd;
    bool readable = false;
    bool ending = false;
    size_t limit = 0;  // how much of it is older than the events at hand
  };

  Status Watch(Source* source, uint32_t events);
  void Flush();
  void Pump();
  bool ReadControl();
  size_t ReadOutput(Stream stream);
  void Yield();

  EventLoop* loop_;
  std::span<char> scratch_;
  Client* client_;
  int32_t pid_;
  Source control_;
  Source streams_[kStreams];
  ControlLines lines_;
  std::string events_;    // of the control socket, not yet given to the client
  std::string requests_;  // not yet sent
  bool pumping_ = false;
  bool gone_ = false;  // the control socket has ended
};

}  // namespace cube::agent::interpreter

#endif  // CUBE_GUESTKERNEL_AGENT_INTERPRETER_WORKER_H_
