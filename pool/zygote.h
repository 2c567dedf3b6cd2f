#ifndef CUBE_POOL_ZYGOTE_H_
#define CUBE_POOL_ZYGOTE_H_

#include <deque>
#include <memory>
#include <set>
#include <string>

#include "pool/events.h"
#include "pool/launcher.h"
#include "pool/template_registry.h"
#include "pool/vm.h"
#include "pool/waiting_clone.h"

namespace cube::pool {

// The zygote of one build of a template: started when the first clone is asked for, and again,
// later and later each time, when it has died. It keeps a few clones waiting in their jails
// (waiting_clone.h), for those that somebody waits for.
class Zygote : public std::enable_shared_from_this<Zygote> {
 public:
  // `name`: no other zygote's (ZygoteSpec).
  Zygote(asio::io_context& io, Launcher* launcher, Events* events, TemplateEntry entry,
         std::string name);

  const TemplateEntry& entry() const { return entry_; }
  // Starts it if it does not run. Waits for whoever is starting it already.
  Task<Outcome<Done>> Start();
  // A parked clone. `urgent`: a create waits for it, so that one in its jail may be taken.
  Task<Outcome<std::shared_ptr<Vm>>> Clone(bool urgent);
  // Ends it; its clones live on. It is not started again.
  void Stop();

  bool running() const { return process_.Alive(); }
  pid_t pid() const { return process_.pid(); }
  // Of the clones that wait in their jails.
  void AddPids(std::set<pid_t>* pids) const;
  uint64_t starts() const { return starts_; }
  const std::string& last_error() const { return last_error_; }

 private:
  // Starts it again when it has ended.
  Task<void> AwaitEnd();
  // The id of a clone that it has made; that of the next zygote's if it died over it.
  Task<Outcome<std::string>> Ask();
  // The id of a clone that was in its jail; "" if there is none.
  Task<std::string> TakeWaiting();
  // Has as many wait as there should be, as soon as nobody waits for a clone.
  Task<void> Restock();
  void DropWaiting();
  // Each start is another zygote to the launcher.
  std::string CurrentName() const { return name_ + "-" + std::to_string(starts_); }
  // Until it may be started again.
  Task<void> Pause();

  asio::io_context& io_;
  Launcher* launcher_;
  Events* events_;
  TemplateEntry entry_;
  std::string name_;
  ProcessHandle process_;
  AsyncLock starting_;
  std::deque<std::shared_ptr<WaitingClone>> waiting_;
  uint32_t urgent_ = 0;  // creates that wait for a clone
  bool restocking_ = false;
  bool stopped_ = false;
  uint64_t starts_ = 0;
  uint32_t failures_ = 0;    // in a row
  uint64_t not_before_ = 0;  // CLOCK_MONOTONIC nanoseconds
  std::string last_error_;
};

}  // namespace cube::pool

#endif  // CUBE_POOL_ZYGOTE_H_
