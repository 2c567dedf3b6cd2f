#include "guestkernel/agent/envd/process_service.h"

#include <signal.h>
#include <functional>
#include <optional>
#include <utility>

#include "base/json_writer.h"
#include "guestkernel/agent/connect/call.h"
#include "guestkernel/agent/envd/process_calls.h"

namespace cube::agent::envd {

using connect::Code;
using connect::Message;
using connect::Outcome;
using connect::RpcError;
using connect::UnaryCall;

namespace {

constexpr Message::EnumName kSignals[] = {
    {"SIGNAL_UNSPECIFIED", 0}, {"SIGNAL_SIGKILL", SIGKILL}, {"SIGNAL_SIGTERM", SIGTERM}};

using ProcessMethod = std::function<Outcome<bool>(Process& process, const Message& message)>;

std::string ListJson(const ProcessTable& table) {
  JsonWriter writer;
  writer.BeginObject().Key("processes").BeginArray();
  for (const auto& [pid, process] : table.running()) {
    const ProcessRequest& request = process->request();
    writer.BeginObject().Key("config").BeginObject();
    writer.Key("cmd").String(request.command);
    writer.Key("args").BeginArray();
    for (const std::string& argument : request.arguments) writer.String(argument);
    writer.EndArray().Key("envs").BeginObject();
    for (const auto& [name, value] : request.environment) writer.Key(name).String(value);
    writer.EndObject();
    if (request.directory) writer.Key("cwd").String(*request.directory);
    writer.EndObject().Key("pid").Int(pid);
    if (request.tag) writer.Key("tag").String(*request.tag);
    writer.EndObject();
  }
  return writer.EndArray().EndObject().text();
}

// A call that does something with a running process, at once, and has nothing to return.
UnaryCall::Method WithProcess(const ProcessTable* table, ProcessMethod method) {
  return [table, method = std::move(method)](UnaryCall* call, const Message& message) {
    std::optional<Message> selector = message.Sub("process");
    if (!selector) return call->Fail({Code::kInvalidArgument, "no process is selected"});
    Outcome<std::shared_ptr<Process>> process = table->Find(*selector, false);
    if (!process.ok()) return call->Fail(process.error());
    Outcome<bool> done = method(**process, message);
    if (!done.ok()) return call->Fail(done.error());
    call->Reply("{}");
  };
}

Outcome<bool> Update(Process& process, const Message& message) {
  Outcome<std::optional<TerminalSize>> terminal = ParseTerminal(message);
  if (!terminal.ok()) return terminal.error();
  if (!terminal->has_value()) return true;
  return process.Resize(**terminal);
}

Outcome<bool> SendSignal(Process& process, const Message& message) {
  std::optional<int32_t> signal = message.Enum("signal", kSignals);
  if (!message.error().empty()) return RpcError{Code::kInvalidArgument, message.error()};
  if (signal != SIGKILL && signal != SIGTERM) {
    return RpcError{Code::kUnimplemented, "only SIGNAL_SIGTERM and SIGNAL_SIGKILL can be sent"};
  }
  return process.Signal(*signal);
}

// Replies when the process has taken it.
void SendInput(const ProcessTable& table, UnaryCall* call, const Message& message) {
  std::optional<Message> selector = message.Sub("process");
  if (!selector) return call->Fail({Code::kInvalidArgument, "no process is selected"});
  Outcome<std::shared_ptr<Process>> process = table.Find(*selector, false);
  if (!process.ok()) return call->Fail(process.error());
  Outcome<ProcessInput> input = ProcessInput::Parse(message);
  if (!input.ok()) return call->Fail(input.error());
  (*process)->Write(input->to_terminal, std::move(input->bytes),
                    [weak = call->weak()](Outcome<bool> written) {
                      auto self = weak.lock();
                      if (self == nullptr) return;
                      if (!written.ok()) return (*self)->Fail(written.error());
                      (*self)->Reply("{}");
                    });
}

}  // namespace

std::unique_ptr<http::Handler> ProcessService::Call(std::string_view method,
                                                    const http::Request& request,
                                                    http::Response* response) {
  const bool stream = method == "Start" || method == "Connect" || method == "StreamInput";
  UnaryCall::Method unary;
  if (method == "List") {
    unary = [this](UnaryCall* call, const Message&) { call->Reply(ListJson(table_)); };
  } else if (method == "Update") {
    unary = WithProcess(&table_, Update);
  } else if (method == "SendSignal") {
    unary = WithProcess(&table_, SendSignal);
  } else if (method == "CloseStdin") {
    unary =
        WithProcess(&table_, [](Process& process, const Message&) { return process.CloseStdin(); });
  } else if (method == "SendInput") {
    unary = [this](UnaryCall* call, const Message& message) { SendInput(table_, call, message); };
  } else if (!stream) {
    return nullptr;
  }
  if (auto refusal = connect::RefuseCall(request, response, stream)) return refusal;
  if (method == "Start") {
    return std::make_unique<StartCall>(request, response, context_, &table_);
  }
  if (method == "Connect") {
    return std::make_unique<ConnectCall>(request, response, context_, &table_);
  }
  if (method == "StreamInput") {
    return std::make_unique<StreamInputCall>(request, response, context_->loop, &table_);
  }
  return std::make_unique<UnaryCall>(request, response, std::move(unary));
}

}  // namespace cube::agent::envd
