#include "guestkernel/agent/agent.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "guestkernel/agent/child_process.h"
#include "guestkernel/agent/log.h"
#include "guestkernel/agent/start_request.h"

namespace cube::agent {
namespace {

// The status a shell would give for what waitpid(2) says.
uint32_t ExitStatus(int wait_status) {
  if (WIFSIGNALED(wait_status)) return 128 + static_cast<uint32_t>(WTERMSIG(wait_status));
  return static_cast<uint32_t>(WEXITSTATUS(wait_status));
}

}  // namespace

Agent::Agent(Parts parts)
    : mailbox_(parts.mailbox),
      doorbell_(parts.doorbell),
      console_(parts.console),
      loop_(parts.loop),
      reaper_(parts.reaper),
      hosts_(parts.hosts),
      on_identity_(std::move(parts.on_identity)),
      reader_(mailbox_->Ring<RingConsumer>(abi::RingId::kToGuest)),
      writer_(mailbox_->Ring<RingProducer>(abi::RingId::kFromGuest)),
      stdin_(mailbox_->Ring<RingConsumer>(abi::RingId::kStdin)),
      stdout_(mailbox_->Ring<RingProducer>(abi::RingId::kStdout)),
      stderr_(mailbox_->Ring<RingProducer>(abi::RingId::kStderr)) {}

Result<std::unique_ptr<Agent>> Agent::Create(Parts parts) {
  std::unique_ptr<Agent> agent(new Agent(std::move(parts)));
  CUBE_ASSIGN(agent->freshness_, Freshness::Prepare());
  CUBE_TRY(agent->WatchConsole());
  return agent;
}

Status Agent::WatchConsole() {
  return loop_->Add(console_->fd(), EPOLLIN | EPOLLET,
                    [this](uint32_t) { console_->TakeWakeUp(); });
}

void Agent::Park() {
  doorbell_->Send(abi::Command::kPark, 0);
  TakeIdentity();
  BecomeReady();
}

bool Agent::TakeIdentity() {
  uint32_t generation = mailbox_->identity_generation();
  if (generation == identity_generation_) return false;
  identity_generation_ = generation;
  Result<Identity> identity = Identity::Parse(mailbox_->bytes());
  if (!identity.ok()) {
    Log(identity.error().message());
    return true;
  }
  Status fresh = freshness_->Apply(*identity);
  if (!fresh.ok()) Log(fresh.error().message());
  failure_ = volumes_.Mount(identity->volumes);
  if (on_identity_) on_identity_(*identity);
  environment_ = std::move(identity->environment);
  hostname_ = std::move(identity->hostname);
  return true;
}

void Agent::BecomeReady() {
  doorbell_->Send(abi::Command::kReady, failure_);
  if (hosts_ == nullptr || hostname_.empty()) return;
  Status named = hosts_->SetName(hostname_);
  if (!named.ok()) Log(named.error().message());
}

Status Agent::Run() {
  loop_->SetSleeper(this);
  Status loop = loop_->Run();
  loop_->SetSleeper(nullptr);
  CUBE_TRY(loop);
  CUBE_TRY(status_);
  // The command is a doorbell of its own, so `notify_` needs none.
  doorbell_->Send(abi::Command::kExit, ExitStatus(*wait_status_));
  return OkStatus();
}

bool Agent::BeforeSleep() {
  // A machine that was frozen while it ran comes by here as well, once the host has woken it.
  if (TakeIdentity()) BecomeReady();
  status_ = Work();
  if (!status_.ok() || (exited_reported_ && writer_.empty())) {
    loop_->Stop();
    return false;
  }
  if (std::exchange(notify_, false)) doorbell_->Notify();
  if (HasWork()) return false;
  // A child that has the console would get the wake-up byte as input. Only its end is of interest
  // then, and SIGCHLD tells of that.
  if (console_->lent()) return true;
  mailbox_->FallAsleep();
  return !HasWork();
}

bool Agent::HasWork() {
  return mailbox_->identity_generation() != identity_generation_ || reader_.HasWork() ||
         writer_.HasWork() || stdin_.HasWork() || stdout_.HasWork() || stderr_.HasWork();
}

Status Agent::Work() {
  while (true) {
    Result<std::optional<Frame>> frame = reader_.Next();
    if (!frame.ok()) {
      Log("control ring: " + frame.error().message());
      break;
    }
    if (!frame->has_value()) break;
    CUBE_TRY(HandleFrame(**frame));
  }
  notify_ |= reader_.TakeHostWaits();
  notify_ |= stdin_.Pump();
  // Watched only once it has been full: most children never fill it, and a watch costs a call.
  if (stdin_.pipe_full() && !stdin_watched_) {
    stdin_watched_ = true;
    CUBE_TRY(
        loop_->Add(stdin_.pipe(), EPOLLOUT | EPOLLET, [this](uint32_t) { stdin_.PipeReady(); }));
  }
  notify_ |= stdout_.Pump();
  notify_ |= stderr_.Pump();
  if (wait_status_ && !exited_reported_ && stdout_.ended() && stderr_.ended()) {
    exited_reported_ = true;
    writer_.Queue(abi::FrameType::kExited,
                  abi::ExitedPayload{static_cast<uint32_t>(*wait_status_)});
  }
  notify_ |= writer_.Flush();
  return OkStatus();
}

Status Agent::HandleFrame(const Frame& frame) {
  switch (static_cast<abi::FrameType>(frame.type)) {
    case abi::FrameType::kStart:
      return HandleStart(frame);
    case abi::FrameType::kSignal:
      HandleSignal(frame);
      return OkStatus();
    default:
      Log(Format("frame of unknown type %u", frame.type));
      return OkStatus();
  }
}

Status Agent::HandleStart(const Frame& frame) {
  if (child_ > 0 || wait_status_) {
    FailStart(EBUSY, "a program has been started already");
    return OkStatus();
  }
  Result<StartRequest> request = StartRequest::Parse(frame.payload);
  if (!request.ok()) {
    FailStart(EINVAL, request.error().message());
    return OkStatus();
  }
  request->AddDefaults(environment_);
  if (request->on_console) {
    loop_->Remove(console_->fd());
    CUBE_TRY(console_->Lend(request->rows, request->columns));
  }
  StartFailure failure;
  std::optional<ChildProcess> child =
      ChildProcess::Start(*request, console_->path().c_str(), &failure);
  if (!child) {
    if (request->on_console) {
      CUBE_TRY(console_->Reclaim());
      CUBE_TRY(WatchConsole());
    }
    FailStart(failure.error, failure.text);
    return OkStatus();
  }
  child_ = child->pid;
  reaper_->Watch(child_, [this](int wait_status) { ChildEnded(wait_status); });
  if (!request->on_console) {
    stdin_.Open(std::move(child->input));
    CUBE_TRY(loop_->Add(child->output.get(), EPOLLIN | EPOLLET,
                        [this](uint32_t) { stdout_.PipeReady(); }));
    stdout_.Open(std::move(child->output));
    CUBE_TRY(loop_->Add(child->error.get(), EPOLLIN | EPOLLET,
                        [this](uint32_t) { stderr_.PipeReady(); }));
    stderr_.Open(std::move(child->error));
  }
  writer_.Queue(abi::FrameType::kStarted, abi::StartedPayload{static_cast<uint32_t>(child_)});
  return OkStatus();
}

void Agent::FailStart(int error, const std::string& text) {
  writer_.Queue(abi::FrameType::kStartFailed, abi::FailedPayload{static_cast<uint32_t>(error)},
                text);
}

void Agent::HandleSignal(const Frame& frame) {
  abi::SignalPayload payload;
  if (frame.payload.size() != sizeof payload) {
    Log(Format("signal request of %zu bytes", frame.payload.size()));
    return;
  }
  std::memcpy(&payload, frame.payload.data(), sizeof payload);
  // No child, no signal: -1 would mean every process there is. An invalid number is kill's to find.
  if (child_ > 0) kill(-child_, static_cast<int>(payload.signal));
}

void Agent::ChildEnded(int wait_status) {
  child_ = -1;
  wait_status_ = wait_status;
  stdin_.Close();
  stdout_.Drain();
  stderr_.Drain();
  if (!console_->lent()) return;
  Status reclaimed = console_->Reclaim();
  if (reclaimed.ok()) reclaimed = WatchConsole();
  if (!reclaimed.ok()) Log(reclaimed.error().message());
}

}  // namespace cube::agent
