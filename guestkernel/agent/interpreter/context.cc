#include "guestkernel/agent/interpreter/context.h"

#include <sys/random.h>
#include <time.h>

#include <algorithm>
#include <utility>

namespace cube::agent::interpreter {
namespace {

// How often, and how soon again, code is interrupted that nobody waits for.
constexpr int kInterrupts = 5;
constexpr uint64_t kInterruptInterval = 1'000'000'000;

int64_t Now() {
  timespec now = {};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

}  // namespace

Context::Context(Surroundings* surroundings, std::string id, Language language,
                 std::string directory)
    : surroundings_(surroundings),
      id_(std::move(id)),
      language_(language),
      directory_(std::move(directory)) {}

Context::~Context() {
  surroundings_->loop()->Cancel(interrupt_timer_);
  worker_.reset();
  EndByError("ContextRemoved", "the context was removed");
  for (Job& job : std::exchange(queue_, {})) {
    job.execution->Write(ErrorEvent("ContextRemoved", "the context was removed"));
    job.execution->Finish();
  }
}

void Context::WhenReady(OnReadyCall call) {
  ready_calls_.push_back(std::move(call));
  if (ready_) {
    TellReady(OkStatus());
  } else {
    StartWorker();
  }
}

void Context::Restart() {
  worker_.reset();
  ready_ = false;
  running_ = false;
  EndByError("ContextRestarted", "the context was restarted");
  StartWorker();
}

void Context::Execute(std::string code, Variables variables, Execution* execution) {
  queue_.push_back({std::move(code), std::move(variables), execution});
  if (ready_) {
    Next();
  } else {
    StartWorker();
  }
}

void Context::Cancel(Execution* execution) {
  std::erase_if(queue_, [execution](const Job& job) { return job.execution == execution; });
  if (current_ != execution) return;
  current_ = nullptr;
  Interrupt(kInterrupts);
  worker_->Resume();
}

void Context::Interrupt(int times) {
  if (times == 0 || !running_ || current_ != nullptr) return;
  worker_->Interrupt();
  // The worker may not have come to begin with it; and code can catch an interrupt.
  EventLoop* loop = surroundings_->loop();
  loop->Cancel(interrupt_timer_);
  interrupt_timer_ = loop->After(kInterruptInterval, [this, times] { Interrupt(times - 1); });
}

void Context::Resume() {
  if (worker_) worker_->Resume();
}

void Context::StartWorker() {
  if (worker_) return;
  Result<WorkerPipes> pipes = WorkerPipes::Create();
  if (!pipes.ok()) return CannotStart(pipes.error());
  Result<int32_t> pid = surroundings_->Start(language_, directory_, &*pipes);
  if (!pid.ok()) return CannotStart(pid.error());
  pipes->its_control.Reset();
  pipes->its_output.Reset();
  pipes->its_error.Reset();
  identity_ = 0;
  for (OutputText& text : texts_) text.Rest(0);
  worker_ = std::make_unique<Worker>(surroundings_->loop(), surroundings_->scratch(), this,
                                     std::move(*pipes), *pid);
  Status opened = worker_->Open();
  if (!opened.ok()) {
    worker_.reset();
    CannotStart(opened.error());
  }
}

void Context::CannotStart(const Error& error) {
  for (Job& job : std::exchange(queue_, {})) {
    job.execution->Write(ErrorEvent("ContextNotStarted", error.message()));
    job.execution->Finish();
  }
  TellReady(error);
}

void Context::TellReady(const Status& status) {
  for (OnReadyCall& call : std::exchange(ready_calls_, {})) call(status);
}

void Context::Next() {
  if (!ready_ || running_ || queue_.empty()) return;
  Job job = std::move(queue_.front());
  queue_.pop_front();
  running_ = true;
  current_ = job.execution;
  std::string requests;
  if (identity_ != surroundings_->identity() || environment_ != surroundings_->environment()) {
    identity_ = surroundings_->identity();
    environment_ = surroundings_->environment();
    uint32_t seed = 0;
    (void)!getrandom(&seed, sizeof seed, GRND_NONBLOCK);
    requests = IdentityRequest(language_, environment_, seed);
  }
  worker_->Send(requests + ExecuteRequest(language_, job.code, job.variables));
}

bool Context::TakesMore() { return current_ == nullptr || current_->TakesMore(); }

void Context::OnReady(int32_t pid) {
  if (ready_) return;  // user code can write this line, too
  ready_ = was_ready_ = true;
  worker_->SetPid(pid);
  Next();
  TellReady(OkStatus());
}

void Context::OnOutput(Worker::Stream stream, std::string_view bytes) {
  if (current_ == nullptr) return;
  std::string event = texts_[stream].Event(bytes, Now());
  if (!event.empty()) current_->Write(event);
}

void Context::OnEvents(std::string_view text) {
  if (current_ != nullptr) current_->Write(text);
}

void Context::OnEnd() {
  if (!running_) return;
  running_ = false;
  for (OutputText& text : texts_) {
    std::string rest = text.Rest(Now());
    if (current_ != nullptr && !rest.empty()) current_->Write(rest);
  }
  if (Execution* done = std::exchange(current_, nullptr)) done->Finish();
  Next();
}

void Context::EndByError(std::string_view name, std::string_view value) {
  Execution* ended = std::exchange(current_, nullptr);
  if (ended == nullptr) return;
  ended->Write(ErrorEvent(name, value));
  ended->Finish();
}

void Context::OnGone() {
  const bool was_ready = std::exchange(ready_, false);
  running_ = false;
  if (worker_->in_line() && current_ != nullptr) {
    // The client has half a line, to which nothing can be added.
    std::exchange(current_, nullptr)->Abort();
  }
  worker_.reset();
  EndByError("ContextEnded",
             "the interpreter has ended: its state is lost, the next execution starts "
             "another");
  if (!was_ready) {
    CannotStart(Error("the interpreter for " + std::string(LanguageName(language_)) +
                      " ended before it was ready"));
  } else if (!queue_.empty() || !ready_calls_.empty()) {
    StartWorker();
  }
}

}  // namespace cube::agent::interpreter
