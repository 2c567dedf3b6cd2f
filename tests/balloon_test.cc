// Memory given back by guests that do not need it, as the host sees it.
#include "devices/balloon/balloon.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "tests/guest_machine.h"
#include "tests/process_memory.h"

namespace cube::testing {
namespace {

// A program that fills a file of `file` MiB, removes it when told, and lives on, for as long as the
// guest may take to give the memory back.
std::vector<std::string> FillAndRemove(int file) {
  return {"/bin/sh", "-c",
          "dd if=/dev/zero of=/tmp/block bs=65536 count=" + std::to_string(16 * file) +
              " 2>/dev/null; echo full; read line; rm /tmp/block; echo empty; sleep 60"};
}

// What the host lends a guest falls again, by itself, once the guest has removed a file of `file`
// MiB: by at least `least` MiB. Waits as long as the guest lives, at every event of its VMM for the
// next: each report is one.
void ExpectToShrink(int memory, int file, int least) {
  std::vector<vmm::NamedDevice> devices;
  devices.push_back({"balloon", devices::Balloon::Create()});
  auto started = GuestMachine::Start(memory, std::move(devices), FillAndRemove(file));
  ASSERT_TRUE(started.ok()) << started.error().message();
  GuestMachine& guest = **started;
  ASSERT_TRUE(guest.Until([&] { return guest.output() == "full\n"; }))
      << guest.output() << guest.end();
  long full = AnonymousKib(getpid());
  ASSERT_GT(full, file * 1024);
  guest.Send("go\n");
  ASSERT_TRUE(guest.Until([&] { return guest.output() == "full\nempty\n"; }))
      << guest.output() << guest.end();
  long now = full;
  bool shrunk = guest.Until([&] {
    now = AnonymousKib(getpid());
    return now <= full - least * 1024;
  });
  EXPECT_TRUE(shrunk) << "from " << full << " KiB to " << now << " only; " << guest.end();
  ::testing::Test::RecordProperty("full_kib", static_cast<int>(full));
  ::testing::Test::RecordProperty("shrunk_kib", static_cast<int>(now));
}

// All but what lies on a processor's list of free pages (2.4 MiB at most of that guest, by
// "high:" in its /proc/zoneinfo) or in pieces too small to report; and meanwhile the VM uses some
// more itself. By reports of 4 MiB it would be 57.4 to 57.7, and less while others use the machine.
TEST(Balloon, AnIdleGuestShrinks) { ExpectToShrink(256, 64, 60); }

// Linux's own threshold for reports of 4 MiB is 128 MiB of free memory.
TEST(Balloon, SoDoesASmallOne) { ExpectToShrink(128, 32, 29); }

}  // namespace
}  // namespace cube::testing
