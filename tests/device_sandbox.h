#ifndef CUBE_TESTS_DEVICE_SANDBOX_H_
#define CUBE_TESTS_DEVICE_SANDBOX_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "tests/process.h"

namespace cube::testing {

// Programs for the guest's interpreter (DeviceSandboxTest::Do): what the file /root/f has on the
// disk, and a text written there.
inline constexpr char kReadUncached[] =
    "import os\nopen('/proc/sys/vm/drop_caches', 'w').write('3')\n"
    "print(open('/root/f').read() if os.path.exists('/root/f') else 'nothing')";
std::string WriteSynced(const std::string& text);

// Has the guest listen on AF_VSOCK: an echo on port 5000, its interpreter on port 5001, one line a
// connection. `ends` has how each connection of the echo ended. Says "serving".
extern const char kServe[];

// Reads what comes until that character, or to the end.
std::string Receive(const UniqueFd& fd, char until = '\0');
// A connection to a port of the guest's; invalid if nobody listens there.
UniqueFd ConnectGuest(const std::string& path, int port);
// What the echo says to that line.
std::string Echo(const UniqueFd& fd, const std::string& text);
// What the guest's interpreter behind its socket says.
std::string AskGuest(const std::string& path, const std::string& code);

// Machines with every device: a root disk, a NIC, sockets and a share, in a network of their own
// with the TAP cube0. All tests of a program clone one template. The guest runs what it is told
// line by line, so that a test sees what its programs have left after they went on elsewhere.
class DeviceSandboxTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite();
  static void TearDownTestSuite();
  void SetUp() override;
  void TearDown() override;

  static std::vector<std::string> Command(std::vector<std::string> words);
  static Finished Ask(std::vector<std::string> words);
  // The control socket of the sandbox in that process.
  static std::string Socket(pid_t pid);
  static std::string Socket(const Process& guest) { return Socket(guest.pid()); }
  // Runs cube-vmm until the test is over.
  Process* Start(std::vector<std::string> words);
  // A clone of the template that does what it is told.
  Process* Clone(std::vector<std::string> options);
  // The line that `code` prints in the guest.
  static std::string Do(Process* guest, const std::string& code);
  void Stop(Process* guest);
  // Snapshots have names here, in a folder of the test's.
  void Snapshot(Process* guest, const std::string& name, bool diff = true);
  Process* Restore(const std::string& name, std::vector<std::string> options);
  void Rollback(Process* guest, const std::string& path);
  // A path for the socket of a guest's AF_VSOCK.
  static std::string Vsock(const std::string& name) { return home_ + "/" + name + ".v"; }

  static inline std::string home_, template_;
  std::string work_;

 private:
  std::vector<std::unique_ptr<Process>> running_;
};

}  // namespace cube::testing

#endif  // CUBE_TESTS_DEVICE_SANDBOX_H_
