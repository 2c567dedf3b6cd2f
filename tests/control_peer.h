#ifndef CUBE_TESTS_CONTROL_PEER_H_
#define CUBE_TESTS_CONTROL_PEER_H_

#include <gtest/gtest.h>

#include <string>

#include "base/unique_fd.h"
#include "vmm/cli/control_request.h"
#include "vmm/cli/control_server.h"

namespace cube::testing {

// A control socket, asked and answered.
class ControlPeer {
 public:
  explicit ControlPeer(const std::string& path) : socket_(vmm::ConnectControl(path).value()) {}
  void Send(const std::string& request) { ASSERT_TRUE(vmm::SendLine(socket_.get(), request).ok()); }
  vmm::ControlRequest Receive() {
    return vmm::ControlRequest::Parse(vmm::ReceiveLine(socket_.get(), &buffer_).value()).value();
  }
  vmm::ControlRequest Ask(const std::string& request) {
    Send(request);
    return Receive();
  }
  static bool Ok(const vmm::ControlRequest& answer) { return answer.Bool("ok", false).value(); }

 private:
  UniqueFd socket_;
  std::string buffer_;
};

}  // namespace cube::testing

#endif  // CUBE_TESTS_CONTROL_PEER_H_
