#include "pool/client_exec.h"

#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>
#include <thread>

#include "base/byte_io.h"
#include "base/json_writer.h"
#include "guestkernel/agent/connect/base64.h"
#include "vmm/cli/terminal.h"

namespace cube::pool {
namespace {

namespace json = boost::json;

constexpr int kLost = 255;
constexpr size_t kInputPiece = 32 * 1024;

json::object SizeOfTerminal() {
  winsize size = {};
  if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col == 0) size = {24, 80, 0, 0};
  return {{"size", json::object{{"cols", size.ws_col}, {"rows", size.ws_row}}}};
}

Result<json::object> StartMessage(const ExecWords& words, bool with_input) {
  json::object process = {{"cmd", words.command.at(0)}};
  process["args"] =
      json::value_from(std::vector<std::string>(words.command.begin() + 1, words.command.end()));
  json::object environment;
  if (words.terminal) {
    const char* term = getenv("TERM");
    environment["TERM"] = term != nullptr ? term : "xterm-256color";
    environment["LANG"] = environment["LC_ALL"] = "C.UTF-8";
  }
  for (const std::string& pair : words.environment) {
    size_t equals = pair.find('=');
    if (equals == std::string::npos) return Errorf("\"%s\" is not NAME=VALUE", pair.c_str());
    environment[pair.substr(0, equals)] = pair.substr(equals + 1);
  }
  process["envs"] = std::move(environment);
  if (!words.folder.empty()) process["cwd"] = words.folder;
  json::object message = {{"process", std::move(process)}, {"stdin", with_input}};
  if (words.terminal) message["pty"] = SizeOfTerminal();
  return message;
}

json::object Selected(int64_t pid) { return {{"process", json::object{{"pid", pid}}}}; }

// Our stdin to the process, as fast as it takes it.
void PassInput(GuestConnection connection, int64_t pid, bool terminal) {
  const char* kind = terminal ? "pty" : "stdin";
  char piece[kInputPiece];
  for (;;) {
    ssize_t n = read(STDIN_FILENO, piece, sizeof piece);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    json::object message = Selected(pid);
    message["input"] = json::object{{kind, Base64({piece, static_cast<size_t>(n)})}};
    if (!connection.Call("process.Process/SendInput", message).ok()) return;
  }
  if (!terminal) (void)connection.Call("process.Process/CloseStdin", Selected(pid));
}

// Signals that this process is sent, all of which are blocked.
void PassSignals(GuestConnection connection, sigset_t signals, int64_t pid) {
  for (;;) {
    int signal = 0;
    if (sigwait(&signals, &signal) != 0) return;
    json::object message = Selected(pid);
    if (signal == SIGWINCH) {
      message["pty"] = SizeOfTerminal();
      if (!connection.Call("process.Process/Update", message).ok()) return;
    } else {
      message["signal"] = "SIGNAL_SIGTERM";
      if (!connection.Call("process.Process/SendSignal", message).ok()) return;
    }
  }
}

// The status that a shell would give it.
int StatusOf(const json::object& end) {
  const json::value* code = end.if_contains("exitCode");
  const json::value* said = end.if_contains("status");
  std::string text = said != nullptr && said->is_string() ? said->get_string().c_str() : "";
  constexpr std::string_view kSignal = "signal: ";
  if (text.starts_with(kSignal)) {
    for (int signal = 1; signal < NSIG; ++signal) {
      const char* name = sigdescr_np(signal);
      if (name != nullptr && strcasecmp(name, text.c_str() + kSignal.size()) == 0) {
        return 128 + signal;
      }
    }
    return kLost;
  }
  if (code == nullptr || !code->is_int64()) return 0;
  return static_cast<int>(code->get_int64() & 255);
}

// A process's events: what it says goes to `say`, which tells if it cannot be told any more.
class Events {
 public:
  using Say = std::function<Status(const char* stream, std::string bytes)>;
  Events(GuestConnection* connection, Say say) : connection_(connection), say_(std::move(say)) {}

  Result<int64_t> AwaitStart() {
    CUBE_ASSIGN(json::object message, connection_->Next());
    const json::value* start = Member(message, "start");
    const json::value* pid =
        start != nullptr && start->is_object() ? start->get_object().if_contains("pid") : nullptr;
    if (pid == nullptr || !pid->is_int64()) return Errorf("the command has not been started");
    return pid->get_int64();
  }

  Result<int> AwaitEnd() {
    for (;;) {
      CUBE_ASSIGN(json::object message, connection_->Next());
      if (GuestConnection::IsEnd(message)) return Errorf("the agent has lost the command");
      if (const json::value* end = Member(message, "end"); end != nullptr && end->is_object()) {
        return StatusOf(end->get_object());
      }
      const json::value* data = Member(message, "data");
      if (data == nullptr || !data->is_object()) continue;
      for (const auto& [stream, text] : data->get_object()) {
        auto bytes = text.is_string() ? agent::connect::DecodeBase64(text.get_string())
                                      : std::optional<std::string>();
        if (!bytes) return Errorf("the agent says what is not Base64");
        CUBE_TRY(say_(std::string(stream).c_str(), std::move(*bytes)));
      }
    }
  }

 private:
  static const json::value* Member(const json::object& message, const char* name) {
    const json::value* event = message.if_contains("event");
    if (event == nullptr || !event->is_object()) return nullptr;
    return event->get_object().if_contains(name);
  }

  GuestConnection* connection_;
  Say say_;
};

Status SayAloud(const char* stream, const std::string& bytes) {
  int fd = strcmp(stream, "stderr") == 0 ? STDERR_FILENO : STDOUT_FILENO;
  return WriteAll(fd, {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, stream);
}

void AddOutput(const char* name, const std::string& bytes, JsonWriter* out) {
  if (IsUtf8(bytes)) {
    out->Key(name).String(bytes);
  } else {
    out->Key(std::string(name) + "_base64").String(Base64(bytes));
  }
}

void PrintJson(const ExecOutput& output) {
  JsonWriter line;
  line.BeginObject().Key("ok").Bool(true).Key("status").Int(output.status);
  AddOutput("stdout", output.out, &line);
  AddOutput("stderr", output.err, &line);
  printf("%s\n", line.EndObject().text().c_str());
}

}  // namespace

Result<int> ExecInGuest(const GuestAccess& access, const ExecWords& words) {
  if (words.terminal && isatty(STDIN_FILENO) == 0) return Errorf("stdin is not a terminal");
  CUBE_ASSIGN(json::object message, StartMessage(words, true));
  CUBE_ASSIGN(GuestConnection stream, GuestConnection::Open(access));
  CUBE_ASSIGN(GuestConnection input, GuestConnection::Open(access));
  CUBE_ASSIGN(GuestConnection control, GuestConnection::Open(access));
  // Threads that are made from here on have them blocked as well: one of them takes them all.
  sigset_t signals;
  sigemptyset(&signals);
  for (int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  if (words.terminal) sigaddset(&signals, SIGWINCH);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  std::optional<vmm::RawTerminal> raw;
  CUBE_TRY(stream.Open("process.Process/Start", message));
  ExecOutput output;
  Events events(&stream, [&](const char* name, const std::string& bytes) -> Status {
    if (!words.as_json) return SayAloud(name, bytes);
    (strcmp(name, "stderr") == 0 ? output.err : output.out) += bytes;
    return OkStatus();
  });
  CUBE_ASSIGN(int64_t pid, events.AwaitStart());
  if (words.terminal) {
    CUBE_ASSIGN(vmm::RawTerminal entered, vmm::RawTerminal::Enter(STDIN_FILENO));
    raw.emplace(std::move(entered));
  }
  std::thread(PassSignals, std::move(control), signals, pid).detach();
  std::thread(PassInput, std::move(input), pid, words.terminal).detach();
  CUBE_ASSIGN(output.status, events.AwaitEnd());
  if (words.as_json) PrintJson(output);
  return output.status;
}

Result<ExecOutput> RunInGuest(const GuestAccess& access, const std::vector<std::string>& command) {
  ExecWords words;
  words.command = command;
  CUBE_ASSIGN(json::object message, StartMessage(words, false));
  CUBE_ASSIGN(GuestConnection stream, GuestConnection::Open(access));
  CUBE_TRY(stream.Open("process.Process/Start", message));
  ExecOutput output;
  Events events(&stream, [&](const char* name, const std::string& bytes) -> Status {
    std::string& said = strcmp(name, "stderr") == 0 ? output.err : output.out;
    said += bytes;
    if (said.size() <= GuestConnection::kMaxMessage) return OkStatus();
    return Errorf("a command says more than 16 MiB");
  });
  CUBE_TRY(events.AwaitStart());
  CUBE_ASSIGN(output.status, events.AwaitEnd());
  return output;
}

}  // namespace cube::pool
