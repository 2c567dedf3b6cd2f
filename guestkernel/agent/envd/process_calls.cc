#include "guestkernel/agent/envd/process_calls.h"

#include <utility>

#include "base/json_writer.h"

namespace cube::agent::envd {

using connect::Code;
using connect::Message;
using connect::Outcome;
using connect::RpcError;

namespace {

constexpr char kKeepAlive[] = R"({"event":{"keepalive":{}}})";

const char* StreamName(Stream stream) {
  switch (stream) {
    case Stream::kStdout:
      return "stdout";
    case Stream::kStderr:
      return "stderr";
    case Stream::kTerminal:
      return "pty";
  }
  __builtin_trap();
}

std::string EndEvent(const ProcessEnd& end) {
  JsonWriter writer;
  writer.BeginObject().Key("event").BeginObject().Key("end").BeginObject();
  writer.Key("exitCode").Int(end.exit_code);
  writer.Key("exited").Bool(end.exited);
  writer.Key("status").String(end.status);
  if (end.exit_code != 0) writer.Key("error").String(end.status);
  return writer.EndObject().EndObject().EndObject().text();
}

Outcome<ProcessRequest> ParseStart(const Message& message) {
  ProcessRequest request;
  if (std::optional<Message> config = message.Sub("process")) {
    request.command = config->String("cmd");
    request.arguments = config->Strings("args");
    request.environment = config->StringMap("envs");
    if (config->Has("cwd")) request.directory = config->String("cwd");
  }
  if (message.Has("tag")) request.tag = message.String("tag");
  request.has_stdin = message.Bool("stdin", true);
  Outcome<std::optional<TerminalSize>> terminal = ParseTerminal(message);
  if (!terminal.ok()) return terminal.error();
  request.terminal = *terminal;
  return request;
}

}  // namespace

Outcome<std::optional<TerminalSize>> ParseTerminal(const Message& message) {
  std::optional<TerminalSize> terminal;
  std::optional<Message> pty = message.Sub("pty");
  if (pty) {
    terminal.emplace();
    if (std::optional<Message> size = pty->Sub("size")) {
      const uint32_t columns = size->Uint32("cols");
      const uint32_t rows = size->Uint32("rows");
      if (columns > UINT16_MAX || rows > UINT16_MAX) {
        return RpcError{Code::kInvalidArgument, "a terminal has at most 65535 columns and rows"};
      }
      *terminal = {static_cast<uint16_t>(columns), static_cast<uint16_t>(rows)};
    }
  }
  if (!message.error().empty()) return RpcError{Code::kInvalidArgument, message.error()};
  return terminal;
}

Outcome<ProcessInput> ProcessInput::Parse(const Message& message) {
  ProcessInput parsed;
  std::optional<Message> input = message.Sub("input");
  const bool has_stdin = input && input->Has("stdin");
  parsed.to_terminal = input && input->Has("pty");
  if (input) parsed.bytes = input->Bytes(parsed.to_terminal ? "pty" : "stdin");
  if (!message.error().empty()) return RpcError{Code::kInvalidArgument, message.error()};
  if (has_stdin == parsed.to_terminal) {
    return RpcError{Code::kInvalidArgument, "input has to be for either stdin or pty"};
  }
  return parsed;
}

ProcessEventsCall::ProcessEventsCall(const http::Request& request, http::Response* response,
                                     Context* context, ProcessTable* table)
    : ServerStreamCall(request, response, context->loop), context_(context), table_(table) {}

ProcessEventsCall::~ProcessEventsCall() {
  if (process_ != nullptr) process_->Leave(this);
}

void ProcessEventsCall::Follow(std::shared_ptr<Process> process) {
  Send(Format(R"({"event":{"start":{"pid":%d}}})", process->pid()));
  if (process->end()) return OnEnd(*process->end());
  process_ = std::move(process);
  process_->Listen(this);
  KeepAlive(kKeepAlive);
}

void ProcessEventsCall::OnOutput(Stream stream, std::string_view bytes) {
  std::string event = R"({"event":{"data":{")";
  event += StreamName(stream);
  event += "\":\"";
  event += Base64(bytes);
  event += "\"}}}";
  Send(event);
}

void ProcessEventsCall::OnEnd(const ProcessEnd& end) {
  process_.reset();
  Send(EndEvent(end));
  End();
}

bool ProcessEventsCall::HasRoom() const { return response()->HasRoom(); }

void ProcessEventsCall::OnDrained() {
  if (process_ != nullptr) process_->OnRoom();
}

void StartCall::Begin(const Message& message) {
  Outcome<ProcessRequest> parsed = ParseStart(message);
  if (!parsed.ok()) return Fail(parsed.error());
  Outcome<std::optional<uint64_t>> limit = connect::TimeLimit(request());
  if (!limit.ok()) return Fail(limit.error());
  Outcome<User> user = context()->UserOf(request());
  if (!user.ok()) return Fail(user.error());
  Outcome<std::shared_ptr<Process>> process = table()->Start(std::move(*parsed), *user);
  if (!process.ok()) return Fail(process.error());
  if (limit->has_value()) (*process)->KillAfter(**limit);
  Follow(*process);
}

void ConnectCall::Begin(const Message& message) {
  Outcome<std::optional<uint64_t>> limit = connect::TimeLimit(request());
  if (!limit.ok()) return Fail(limit.error());
  std::optional<Message> selector = message.Sub("process");
  if (!selector) return Fail({Code::kInvalidArgument, "no process is selected"});
  Outcome<std::shared_ptr<Process>> process = table()->Find(*selector, true);
  if (!process.ok()) return Fail(process.error());
  if (limit->has_value()) EndAfter(**limit);
  Follow(*process);
}

void StreamInputCall::OnMessage(const Message& message) {
  if (std::optional<Message> start = message.Sub("start")) {
    std::optional<Message> selector = start->Sub("process");
    if (!selector) return Fail({Code::kInvalidArgument, "no process is selected"});
    Outcome<std::shared_ptr<Process>> process = table_->Find(*selector, false);
    if (!process.ok()) return Fail(process.error());
    process_ = *process;
    return;
  }
  std::optional<Message> data = message.Sub("data");
  if (!data) return;  // to keep the connection alive
  if (process_ == nullptr)
    return Fail({Code::kInvalidArgument, "data before a process is selected"});
  Outcome<ProcessInput> input = ProcessInput::Parse(*data);
  if (!input.ok()) return Fail(input.error());
  Pause();
  process_->Write(input->to_terminal, std::move(input->bytes),
                  [weak = std::weak_ptr(self_)](Outcome<bool> written) {
                    auto self = weak.lock();
                    if (self == nullptr) return;
                    if (!written.ok()) return (*self)->Fail(written.error());
                    (*self)->Resume();
                  });
}

void StreamInputCall::OnMessagesEnd() {
  Send("{}");
  End();
}

}  // namespace cube::agent::envd
