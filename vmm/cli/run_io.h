#ifndef CUBE_VMM_CLI_RUN_IO_H_
#define CUBE_VMM_CLI_RUN_IO_H_

#include <unistd.h>

#include <functional>
#include <optional>
#include <span>
#include <string>

#include "base/control_abi.h"
#include "base/json_writer.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/cli/console_log.h"
#include "vmm/cli/output_sink.h"
#include "vmm/cli/sandbox_log.h"
#include "vmm/cli/terminal.h"
#include "vmm/event_loop.h"

namespace cube::vmm {

// What the process of a sandbox shows of its guest and takes for it: a command's output as it is or
// as JSON lines, the serial console, and the terminal of an interactive shell. On the event loop's
// thread, unless said otherwise.
class RunIo {
 public:
  struct Options {
    bool json = false;         // output becomes events, one JSON object a line
    bool interactive = false;  // the console is on this process's terminal
    std::string console;       // where the console's output goes: "", "-" for stderr, or a file
  };
  struct Owner {
    std::function<void()> room;  // output that was not taken can be offered again
    std::function<void(std::span<const uint8_t>)> typed;  // for the guest's console
    std::function<void(int status, const std::string& reason)> finish;
  };

  RunIo(Options options, Owner owner) : options_(std::move(options)), owner_(std::move(owner)) {}

  // With `log`, which outlives this, output goes there.
  Status SetUp(EventLoop* loop, SandboxLog* log);

  // Takes output of the guest's command; returns how much. The rest is offered again after `room`.
  // With `last`, no more of that stream follows.
  size_t TakeOutput(abi::RingId stream, std::span<const uint8_t> bytes, bool last);
  // True once nobody can take that stream's output any more.
  bool OutputClosed(abi::RingId stream) const;
  void EmitJson(const JsonWriter& json);

  // Written by vCPU threads.
  ConsoleLog& console() { return console_; }
  // Shows what is left of the console's output, and gives the terminal back as it was.
  void Close();

 private:
  struct Output {
    OutputSink sink;
    bool watched = false;
  };

  size_t EmitOutput(bool is_stdout, std::span<const uint8_t> bytes, bool last);
  void WatchOutput(Output* output, bool wanted);
  void ForwardConsole();
  void OnTyped();

  Options options_;
  Owner owner_;
  EventLoop* loop_ = nullptr;
  SandboxLog* log_ = nullptr;
  std::optional<RawTerminal> terminal_;
  ConsoleEscape escape_;
  ConsoleLog console_;
  UniqueFd console_file_;
  UniqueFd console_event_;
  Output stdout_{OutputSink(STDOUT_FILENO)};
  Output stderr_{OutputSink(STDERR_FILENO)};
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_RUN_IO_H_
