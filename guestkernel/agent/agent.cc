#include "guestkernel/agent/agent.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

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

Agent::Agent(Mailbox* mailbox, Doorbell* doorbell, Console* console, HostsFile* hosts)
    : mailbox_(mailbox),
      doorbell_(doorbell),
      console_(console),
      hosts_(hosts),
      reader_(mailbox->Ring<RingConsumer>(abi::RingId::kToGuest)),
      writer_(mailbox->Ring<RingProducer>(abi::RingId::kFromGuest)),
      stdin_(mailbox->Ring<RingConsumer>(abi::RingId::kStdin)),
      stdout_(mailbox->Ring<RingProducer>(abi::RingId::kStdout)),
      stderr_(mailbox->Ring<RingProducer>(abi::RingId::kStderr)) {}

Result<Agent> Agent::Create(Mailbox* mailbox, Doorbell* doorbell, Console* console,
                            HostsFile* hosts) {
  Agent agent(mailbox, doorbell, console, hosts);
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGPIPE);
  sigaddset(&blocked, SIGCHLD);
  if (sigprocmask(SIG_BLOCK, &blocked, nullptr) < 0) return ErrnoError("sigprocmask");
  sigdelset(&blocked, SIGPIPE);
  agent.signals_ = UniqueFd(signalfd(-1, &blocked, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!agent.signals_.valid()) return ErrnoError("signalfd");
  agent.epoll_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
  if (!agent.epoll_.valid()) return ErrnoError("epoll_create1");
  CUBE_ASSIGN(agent.freshness_, Freshness::Prepare());
  CUBE_TRY(agent.Watch(agent.signals_.get(), EPOLLIN, kSignals));
  CUBE_TRY(agent.Watch(console->fd(), EPOLLIN | EPOLLET, kConsole));
  return agent;
}

Status Agent::Watch(int fd, uint32_t events, Source source) {
  epoll_event event = {.events = events, .data = {.u32 = source}};
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) < 0) return ErrnoError("epoll_ctl");
  return OkStatus();
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
  environment_ = std::move(identity->environment);
  hostname_ = std::move(identity->hostname);
  return true;
}

void Agent::BecomeReady() {
  doorbell_->Send(abi::Command::kReady, 0);
  if (hosts_ == nullptr || hostname_.empty()) return;
  Status named = hosts_->SetName(hostname_);
  if (!named.ok()) Log(named.error().message());
}

Status Agent::Run() {
  while (true) {
    // A machine that was frozen while it ran comes by here as well, once the host has woken it.
    if (TakeIdentity()) BecomeReady();
    CUBE_TRY(Work());
    if (exited_reported_ && writer_.empty()) {
      // The command is a doorbell of its own, so `notify_` needs none.
      doorbell_->Send(abi::Command::kExit, ExitStatus(*wait_status_));
      return OkStatus();
    }
    if (std::exchange(notify_, false)) doorbell_->Notify();
    if (HasWork()) continue;
    // A child that has the console would get the wake-up byte as input. Only its end is of
    // interest then, and SIGCHLD tells of that.
    if (!console_->lent()) {
      mailbox_->FallAsleep();
      if (HasWork()) {
        mailbox_->WakeUp();
        continue;
      }
    }
    CUBE_TRY(Sleep());
    mailbox_->WakeUp();
  }
}

Status Agent::Sleep() {
  epoll_event events[8];
  int count = epoll_wait(epoll_.get(), events, 8, -1);
  if (count < 0 && errno != EINTR) return ErrnoError("epoll_wait");
  for (int i = 0; i < count; ++i) {
    switch (events[i].data.u32) {
      case kConsole:
        console_->TakeWakeUp();
        break;
      case kSignals:
        child_ended_news_ = true;
        break;
      case kStdin:
        stdin_.PipeReady();
        break;
      case kStdout:
        stdout_.PipeReady();
        break;
      case kStderr:
        stderr_.PipeReady();
        break;
    }
  }
  return OkStatus();
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
    CUBE_TRY(Watch(stdin_.pipe(), EPOLLOUT | EPOLLET, kStdin));
  }
  // Children are reaped before the output is carried, so that draining starts in the same turn.
  if (std::exchange(child_ended_news_, false)) CUBE_TRY(ReapChildren());
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
  if (request->on_console) CUBE_TRY(console_->Lend(request->rows, request->columns));
  StartFailure failure;
  std::optional<ChildProcess> child =
      ChildProcess::Start(*request, console_->path().c_str(), &failure);
  if (!child) {
    if (request->on_console) {
      CUBE_TRY(console_->Reclaim());
      CUBE_TRY(Watch(console_->fd(), EPOLLIN | EPOLLET, kConsole));
    }
    FailStart(failure.error, failure.text);
    return OkStatus();
  }
  child_ = child->pid;
  if (!request->on_console) {
    stdin_.Open(std::move(child->input));
    CUBE_TRY(Watch(child->output.get(), EPOLLIN | EPOLLET, kStdout));
    stdout_.Open(std::move(child->output));
    CUBE_TRY(Watch(child->error.get(), EPOLLIN | EPOLLET, kStderr));
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

Status Agent::ReapChildren() {
  // The signal stays pending, and the descriptor ready, until it is read.
  signalfd_siginfo info;
  while (read(signals_.get(), &info, sizeof info) < 0 && errno == EINTR) {
  }
  while (true) {
    int status = 0;
    pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid <= 0) return OkStatus();
    if (pid != child_) continue;  // an orphan that PID 1 inherited
    child_ = -1;
    wait_status_ = status;
    stdin_.Close();
    stdout_.Drain();
    stderr_.Drain();
    if (console_->lent()) {
      CUBE_TRY(console_->Reclaim());
      CUBE_TRY(Watch(console_->fd(), EPOLLIN | EPOLLET, kConsole));
    }
  }
}

}  // namespace cube::agent
