#include <arpa/inet.h>
#include <gtest/gtest.h>

#include "net/client_name.h"
#include "net/dns_message.h"
#include "net/network.h"

namespace cube::net {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes Text(std::string_view text) { return Bytes(text.begin(), text.end()); }

Bytes Query(std::initializer_list<std::string_view> labels, uint16_t type) {
  Bytes query = {0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0};
  for (std::string_view label : labels) {
    query.push_back(static_cast<uint8_t>(label.size()));
    query.insert(query.end(), label.begin(), label.end());
  }
  for (int byte : {0, type >> 8, type & 255, 0, 1}) query.push_back(static_cast<uint8_t>(byte));
  return query;
}

TEST(DnsMessageTest, Queries) {
  auto question = ParseDnsQuery(Query({"Www", "Example", "COM"}, kDnsTypeA));
  ASSERT_TRUE(question.ok());
  EXPECT_EQ(question->id, 0x1234);
  EXPECT_EQ(question->name, "www.example.com");
  EXPECT_EQ(question->type, kDnsTypeA);
  // A dot, or anything odd, within a label is no dot between labels.
  EXPECT_EQ(ParseDnsQuery(Query({"a.example", "com"}, 1))->name, "a?example.com");
  Bytes whole = Query({"a", "b"}, 1);
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(ParseDnsQuery(std::span(whole).first(size)).ok()) << size;
  }
  for (auto [at, value] : std::initializer_list<std::pair<size_t, int>>{
           {2, 0x81}, {2, 0x29}, {5, 2}, {5, 0}, {12, 0xc0}, {12, 0x41}, {12, 200}, {20, 3}}) {
    Bytes bad = whole;
    bad[at] = static_cast<uint8_t>(value);
    EXPECT_FALSE(ParseDnsQuery(bad).ok()) << at;
  }
}

TEST(DnsMessageTest, AnswersByAliases) {
  auto question = ParseDnsQuery(Query({"a", "b"}, kDnsTypeA)).value();
  Bytes answer = MakeDnsQuery(question, 7);
  answer[2] = 0x81;
  answer[7] = 4;
  auto record = [&](Bytes owner, uint8_t type, Bytes data) {
    answer.insert(answer.end(), owner.begin(), owner.end());
    for (uint8_t byte : Bytes{0, type, 0, 1, 0, 0, 0, 60, 0, static_cast<uint8_t>(data.size())}) {
      answer.push_back(byte);
    }
    answer.insert(answer.end(), data.begin(), data.end());
  };
  record({0xc0, 12}, 5, {1, 'c', 0xc0, 14});  // a.b is an alias of c.b
  record({1, 'c', 0xc0, 14}, 1, {192, 0, 2, 1});
  record({1, 'x', 0xc0, 14}, 1, {10, 0, 0, 1});  // of something else
  record({0xc0, 12}, 16, {3, 'a', 'b', 'c'});
  auto said = ParseDnsAnswer(answer, question, 7);
  ASSERT_TRUE(said.ok()) << said.error().message();
  ASSERT_EQ(said->addresses.size(), 1u);
  EXPECT_EQ(said->addresses[0].address, htonl(0xc0000201));
  EXPECT_EQ(said->addresses[0].ttl, 60u);
  EXPECT_FALSE(ParseDnsAnswer(answer, question, 8).ok());
  for (size_t size = 0; size < answer.size(); ++size) {
    EXPECT_FALSE(ParseDnsAnswer(std::span(answer).first(size), question, 7).ok()) << size;
  }
  // A name that is its own continuation.
  Bytes loop = MakeDnsQuery(question, 7);
  loop[2] = 0x81;
  loop[7] = 1;
  uint8_t self = static_cast<uint8_t>(loop.size());
  for (uint8_t byte : Bytes{0xc0, self, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 1, 2, 3, 4}) {
    loop.push_back(byte);
  }
  EXPECT_FALSE(ParseDnsAnswer(loop, question, 7).ok());
}

TEST(DnsMessageTest, WhatIsMadeReads) {
  auto question = ParseDnsQuery(Query({"a", "b"}, kDnsTypeA)).value();
  Bytes made = MakeDnsAnswer(question, DnsCode::kNoError, {{htonl(0x01020304), 30}});
  auto said = ParseDnsAnswer(made, question, question.id);
  ASSERT_TRUE(said.ok());
  EXPECT_EQ(said->addresses, (std::vector<DnsAddress>{{htonl(0x01020304), 30}}));
  EXPECT_EQ(ParseDnsAnswer(MakeDnsError(question, 3), question, question.id)->raw_code, 3);
  // Of IPv6, whole or not.
  auto six = ParseDnsQuery(Query({"a", "b"}, kDnsTypeAaaa)).value();
  const bpf::address6 address = ToWire(ParseNetwork6("2001:db8::1")->address);
  made = MakeDnsAnswer(six, DnsCode::kNoError, {}, {{address, 30}, {address, 31}});
  said = ParseDnsAnswer(made, six, six.id);
  ASSERT_TRUE(said.ok());
  EXPECT_TRUE(said->addresses.empty());
  EXPECT_EQ(said->addresses6, (std::vector<DnsAddress6>{{address, 30}, {address, 31}}));
  for (size_t size = 0; size < made.size(); ++size) {
    EXPECT_FALSE(ParseDnsAnswer(std::span(made).first(size), six, six.id).ok()) << size;
  }
  // One of another length is none.
  made[made.size() - 17] = 15;
  made.pop_back();
  EXPECT_EQ(ParseDnsAnswer(made, six, six.id)->addresses6.size(), 1u);
}

// A ClientHello with these extensions, in records of at most `record` bytes.
Bytes Hello(const Bytes& extensions, size_t record = 16384) {
  Bytes body = {3, 3};
  body.resize(34);
  for (uint8_t byte : {0, 0, 2, 0x13, 1, 1, 0}) body.push_back(byte);
  body.push_back(static_cast<uint8_t>(extensions.size() >> 8));
  body.push_back(static_cast<uint8_t>(extensions.size()));
  body.insert(body.end(), extensions.begin(), extensions.end());
  Bytes handshake = {1, 0, static_cast<uint8_t>(body.size() >> 8),
                     static_cast<uint8_t>(body.size())};
  handshake.insert(handshake.end(), body.begin(), body.end());
  Bytes hello;
  for (size_t at = 0; at < handshake.size(); at += record) {
    size_t size = std::min(record, handshake.size() - at);
    for (size_t byte : {size_t{22}, size_t{3}, size_t{1}, size >> 8, size & 255}) {
      hello.push_back(static_cast<uint8_t>(byte));
    }
    hello.insert(hello.end(), handshake.begin() + static_cast<long>(at),
                 handshake.begin() + static_cast<long>(at + size));
  }
  return hello;
}

Bytes ServerName(std::string_view name) {
  auto size = static_cast<uint8_t>(name.size());
  Bytes extension = {0, 0, 0,   static_cast<uint8_t>(size + 5), 0, static_cast<uint8_t>(size + 3),
                     0, 0, size};
  extension.insert(extension.end(), name.begin(), name.end());
  return extension;
}

TEST(ClientNameTest, TlsInRecordsOfAnySize) {
  Bytes extensions = {0, 10, 0, 1, 0};
  for (uint8_t byte : ServerName("Api.Example.com")) extensions.push_back(byte);
  for (size_t record : {1, 7, 50, 16384}) {
    Bytes hello = Hello(extensions, record);
    ClientName said = ReadTlsName(hello);
    EXPECT_EQ(said.state, ClientName::kKnown) << said.why;
    EXPECT_EQ(said.name, "api.example.com");
    for (size_t size = 0; size < hello.size(); ++size) {
      EXPECT_EQ(ReadTlsName(std::span(hello).first(size)).state, ClientName::kMore) << size;
    }
  }
}

TEST(ClientNameTest, TlsThatIsRefused) {
  Bytes twice = ServerName("a.com");
  for (uint8_t byte : ServerName("b.com")) twice.push_back(byte);
  Bytes extra = ServerName("a.com");
  extra[3] += 1;
  extra.push_back(0);
  for (const Bytes& hello :
       {Hello({}), Hello(twice), Hello(extra), Hello(ServerName("")), Hello(ServerName("1.2.3.4")),
        Hello(ServerName("*.a.com")), Hello(ServerName({"a.com\0b.com", 11})),
        Text("GET / HTTP/1.1\r\n"), Bytes{22, 3, 1, 0, 0}, Bytes{22, 3, 1, 0x40, 1},
        Bytes{22, 3, 1, 0, 1, 2}, Bytes{22, 3, 1, 0, 4, 1, 0xff, 0, 0}}) {
    EXPECT_EQ(ReadTlsName(hello).state, ClientName::kRefused);
  }
}

TEST(ClientNameTest, Http) {
  Bytes request = Text(
      "GET /x HTTP/1.1\r\nHost: Example.com:80\r\nConnection: keep-alive, upgrade\r\n"
      "Upgrade: h2c\r\nAccept: */*\r\n\r\nbody");
  ClientName said = ReadHttpName(request);
  ASSERT_EQ(said.state, ClientName::kKnown) << said.why;
  EXPECT_EQ(said.name, "example.com");
  EXPECT_EQ(said.consumed, request.size() - 4);
  EXPECT_EQ(said.head,
            "GET /x HTTP/1.1\r\nHost: Example.com:80\r\nAccept: */*\r\nConnection: close\r\n\r\n");
  for (size_t size = 0; size + 4 < request.size(); ++size) {
    EXPECT_EQ(ReadHttpName(std::span(request).first(size)).state, ClientName::kMore) << size;
  }
}

TEST(ClientNameTest, HttpThatIsRefused) {
  for (const char* request : {
           "GET / HTTP/1.1\r\nAccept: */*\r\n\r\n",
           "GET / HTTP/1.1\r\nHost: a.com\r\nHost: b.com\r\n\r\n",
           "GET http://b.com/ HTTP/1.1\r\nHost: a.com\r\n\r\n",
           "CONNECT b.com:443 HTTP/1.1\r\nHost: a.com\r\n\r\n",
           "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
           "GET /\r\n\r\n",
           "GET / HTTP/1.1\nHost: a.com\n\n",
           "GET / HTTP/1.1\r\nHost : a.com\r\n\r\n",
           "GET / HTTP/1.1\r\nHost: a.com\r\n b.com\r\n\r\n",
           "GET / HTTP/1.1\r\nX: 1\nHost: b.com\r\nHost: a.com\r\n\r\n",
           "GET / HTTP/1.1\r\nX: 1\rHost: b.com\r\nHost: a.com\r\n\r\n",
           "GET / HTTP/1.1\r\nHost: a.com, b.com\r\n\r\n",
           "GET / HTTP/1.1\r\nHost: a.com:8080\r\n\r\n",
           "GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
           "GET / HTTP/1.1\r\nHost:\r\n\r\n",
           "SSH-2.0-x\r\n",
       }) {
    EXPECT_EQ(ReadHttpName(Text(request)).state, ClientName::kRefused) << request;
  }
}

}  // namespace
}  // namespace cube::net
