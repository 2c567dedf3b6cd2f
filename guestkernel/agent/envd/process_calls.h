#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_PROCESS_CALLS_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_PROCESS_CALLS_H_

#include <memory>
#include <optional>
#include <string_view>

#include "guestkernel/agent/connect/call.h"
#include "guestkernel/agent/envd/process_table.h"

namespace cube::agent::envd {

// A stream of a process's events, for Start and Connect.
class ProcessEventsCall : public connect::ServerStreamCall, private Process::Listener {
 public:
  ProcessEventsCall(const http::Request& request, http::Response* response, Context* context,
                    ProcessTable* table);
  ~ProcessEventsCall() override;

  void OnDrained() override;

 protected:
  // Sends the start event, then all others.
  void Follow(std::shared_ptr<Process> process);

  Context* context() const { return context_; }
  ProcessTable* table() const { return table_; }

 private:
  void OnOutput(Stream stream, std::string_view bytes) override;
  void OnEnd(const ProcessEnd& end) override;
  bool HasRoom() const override;

  Context* context_;
  ProcessTable* table_;
  std::shared_ptr<Process> process_;
};

// Starts a process, which lives on when the client leaves, but not longer than the time limit of
// the call.
class StartCall final : public ProcessEventsCall {
 public:
  using ProcessEventsCall::ProcessEventsCall;

 private:
  void Begin(const connect::Message& message) override;
};

// Follows a process that has been started before.
class ConnectCall final : public ProcessEventsCall {
 public:
  using ProcessEventsCall::ProcessEventsCall;

 private:
  void Begin(const connect::Message& message) override;
};

// A stream of input for one process, each message waiting for the process to take the one before.
class StreamInputCall final : public connect::ClientStreamCall {
 public:
  StreamInputCall(const http::Request& request, http::Response* response, EventLoop* loop,
                  ProcessTable* table)
      : ClientStreamCall(request, response, loop), table_(table) {}

 private:
  void OnMessage(const connect::Message& message) override;
  void OnMessagesEnd() override;

  ProcessTable* table_;
  std::shared_ptr<Process> process_;
  std::shared_ptr<StreamInputCall*> self_ = std::make_shared<StreamInputCall*>(this);
};

// What SendInput and StreamInput give a process.
struct ProcessInput {
  // An error if the message has neither, or is not right.
  static connect::Outcome<ProcessInput> Parse(const connect::Message& message);

  bool to_terminal = false;
  std::string bytes;
};

// The size in a message's `pty`; nothing if it has none.
connect::Outcome<std::optional<TerminalSize>> ParseTerminal(const connect::Message& message);

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_PROCESS_CALLS_H_
