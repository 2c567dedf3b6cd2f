#include "api/tls_end.h"

#include <gtest/gtest.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>
#include <filesystem>
#include <string>
#include <thread>

#include "pool/async.h"
#include "pool/tls_authority.h"

namespace cube::api {
namespace {

namespace ssl = asio::ssl;
using asio::ip::tcp;
using boost::system::error_code;

size_t Descriptors() {
  auto folder = std::filesystem::directory_iterator("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(folder), end(folder)));
}

// Both sides of one connection. What is ours runs in Run(), the client where the test says.
class TlsEndTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto files = pool::MakeTlsFiles(::testing::TempDir() + "/tls_end", "", {});
    ASSERT_TRUE(files.ok());
    auto end = TlsEnd::Create(io_, files->certificate, files->key);
    ASSERT_TRUE(end.ok());
    end_ = std::move(*end);
    before_ = Descriptors();
    std::thread shake([this] {
      far_.lowest_layer().connect(acceptor_.local_endpoint());
      far_.handshake(ssl::stream_base::client);
    });
    Run(Accept());
    shake.join();
    ASSERT_TRUE(near_.has_value());
  }

  // Until that is done.
  void Run(Task<void> task) {
    bool done = false;
    pool::Spawn(io_, [](Task<void> one, bool* ended) -> Task<void> {
      co_await std::move(one);
      *ended = true;
    }(std::move(task), &done));
    while (!done) io_.run_one();
  }
  Task<void> Accept() {
    tcp::socket socket(io_);
    co_await acceptor_.async_accept(socket, pool::kAsTuple);
    near_ = co_await end_->Accept(std::move(socket));
  }

  asio::io_context io_{1}, far_io_;
  tcp::acceptor acceptor_{io_, tcp::endpoint(asio::ip::address_v4::loopback(), 0)};
  ssl::context trusting_{ssl::context::tls_client};
  ssl::stream<tcp::socket> far_{far_io_, trusting_};
  std::unique_ptr<TlsEnd> end_;
  std::optional<TlsEnd::Client> near_;
  size_t before_ = 0;
};

TEST_F(TlsEndTest, WhatWasWrittenLastStillGetsThereAndThenTheEnd) {
  const std::string kWords(300'000, 'w');
  std::string got;
  error_code ended, answered;
  std::thread read([&] {
    asio::read(far_, asio::dynamic_buffer(got), ended);
    far_.shutdown(answered);
  });
  Run([](TlsEnd::Client* client, const std::string* words) -> Task<void> {
    co_await asio::async_write(client->socket, asio::buffer(*words), pool::kAsTuple);
    client->socket.close();
    co_await TlsEnd::Finish(client->session);
  }(&*near_, &kWords));
  read.join();
  EXPECT_TRUE(got == kWords) << got.size();
  // Not as if it had been cut off: RFC 8446 section 6.1.
  EXPECT_EQ(ended, asio::error::eof) << ended.message();
}

TEST_F(TlsEndTest, AClientThatTakesNothingIsGivenUpWithItsConnection) {
  // Until no buffer on the way takes more.
  const std::string kPiece(65536, 'x');
  near_->socket.non_blocking(true);
  for (int idle = 0; idle < 3;) {
    error_code full;
    near_->socket.write_some(asio::buffer(kPiece), full);
    if (!full || io_.poll() != 0) {
      idle = 0;
    } else {
      ++idle;
    }
  }
  near_->socket.close();
  Run(TlsEnd::Finish(std::move(near_->session)));
  near_.reset();
  io_.poll();
  // The client's own is left.
  EXPECT_EQ(Descriptors(), before_ + 1);
}

}  // namespace
}  // namespace cube::api
