#include "net/dns_message.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>
#include <set>

namespace cube::net {
namespace {

constexpr size_t kHeader = 12;
constexpr size_t kMaxName = 255;  // RFC 1035 section 2.3.4, with its lengths
constexpr int kMaxJumps = 64;
constexpr size_t kMaxRecords = 256;
constexpr size_t kMaxAddresses = 64;
constexpr uint16_t kClassIn = 1;
constexpr uint16_t kTypeCname = 5;
constexpr uint16_t kFlagAnswer = 0x8000, kFlagTruncated = 0x0200, kFlagRecursion = 0x0100,
                   kFlagRecursive = 0x0080, kOpcode = 0x7800;

// Reads a message from the front.
class Reader {
 public:
  explicit Reader(std::span<const uint8_t> message) : message_(message) {}

  bool ok() const { return ok_; }
  size_t at() const { return at_; }
  uint16_t Get16() {
    if (!Has(2)) return 0;
    auto value = static_cast<uint16_t>(message_[at_] << 8 | message_[at_ + 1]);
    at_ += 2;
    return value;
  }
  uint32_t Get32() {
    uint32_t high = Get16();
    return high << 16 | Get16();
  }
  void Skip(size_t size) {
    if (Has(size)) at_ += size;
  }
  // Labels with dots between them, lower-cased. A byte that has no place in a host's name is
  // written as '?', so that it matches nothing.
  std::string Name() {
    std::string name;
    size_t at = at_;
    int jumps = 0;
    for (;;) {
      if (at >= message_.size()) return Fail();
      uint8_t length = message_[at];
      if ((length & 0xc0) == 0xc0) {
        if (at + 1 >= message_.size() || ++jumps > kMaxJumps) return Fail();
        if (jumps == 1) at_ = at + 2;
        at = static_cast<size_t>(length & 0x3f) << 8 | message_[at + 1];
        continue;
      }
      if ((length & 0xc0) != 0 || at + 1 + length > message_.size()) return Fail();
      if (length == 0) break;
      if (!name.empty()) name += '.';
      for (uint8_t byte : message_.subspan(at + 1, length)) {
        bool is_plain = (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') ||
                        byte == '-' || byte == '_';
        if (byte >= 'A' && byte <= 'Z') {
          name += static_cast<char>(byte | 32);
        } else {
          name += is_plain ? static_cast<char>(byte) : '?';
        }
      }
      if (name.size() > kMaxName) return Fail();
      at += 1u + length;
    }
    if (jumps == 0) at_ = at + 1;
    jumped_ = jumps != 0;
    return name;
  }
  // Whether the last name was not written out.
  bool jumped() const { return jumped_; }

 private:
  bool Has(size_t size) {
    ok_ = ok_ && size <= message_.size() - at_;
    return ok_;
  }
  std::string Fail() {
    ok_ = false;
    return {};
  }

  std::span<const uint8_t> message_;
  size_t at_ = 0;
  bool ok_ = true;
  bool jumped_ = false;
};

void Put16(std::vector<uint8_t>* bytes, uint32_t value) {
  bytes->push_back(static_cast<uint8_t>(value >> 8));
  bytes->push_back(static_cast<uint8_t>(value));
}

template <typename Address>
void PutRecord(std::vector<uint8_t>* bytes, uint16_t type, const DnsAddressOf<Address>& record) {
  Put16(bytes, 0xc000 | kHeader);  // the question's name
  Put16(bytes, type);
  Put16(bytes, kClassIn);
  Put16(bytes, record.ttl >> 16);
  Put16(bytes, record.ttl & 0xffff);
  Put16(bytes, sizeof(Address));
  uint8_t address[sizeof(Address)];
  memcpy(address, &record.address, sizeof address);
  bytes->insert(bytes->end(), address, address + sizeof address);
}

std::vector<uint8_t> Header(uint16_t id, uint16_t flags, size_t answers) {
  std::vector<uint8_t> bytes;
  Put16(&bytes, id);
  Put16(&bytes, flags);
  Put16(&bytes, 1);
  Put16(&bytes, static_cast<uint32_t>(answers));
  Put16(&bytes, 0);
  Put16(&bytes, 0);
  return bytes;
}

}  // namespace

Result<DnsQuestion> ParseDnsQuery(std::span<const uint8_t> message) {
  Reader reader(message);
  DnsQuestion question;
  question.id = reader.Get16();
  uint16_t flags = reader.Get16();
  uint16_t questions = reader.Get16();
  reader.Skip(6);  // other sections: an OPT record at most, which need not be heard
  if (!reader.ok() || (flags & (kFlagAnswer | kOpcode)) != 0 || questions != 1) {
    return Errorf("a DNS message that is no query with one question");
  }
  question.recursion_desired = (flags & kFlagRecursion) != 0;
  question.name = reader.Name();
  if (reader.jumped()) return Errorf("a DNS question whose name is not written out");
  question.type = reader.Get16();
  uint16_t in_class = reader.Get16();
  if (!reader.ok()) return Errorf("a DNS question that is cut short");
  if (in_class != kClassIn) return Errorf("a DNS question of class %u", in_class);
  question.bytes.assign(message.begin() + kHeader,
                        message.begin() + static_cast<long>(reader.at()));
  return question;
}

Result<DnsAnswer> ParseDnsAnswer(std::span<const uint8_t> message, const DnsQuestion& question,
                                 uint16_t id) {
  Reader reader(message);
  bool is_ours = reader.Get16() == id;
  uint16_t flags = reader.Get16();
  uint16_t questions = reader.Get16();
  uint16_t records = reader.Get16();
  reader.Skip(4);
  std::string name = reader.Name();
  uint16_t type = reader.Get16();
  uint16_t in_class = reader.Get16();
  if (!reader.ok() || !is_ours || (flags & kFlagAnswer) == 0 || questions != 1 ||
      name != question.name || type != question.type || in_class != kClassIn) {
    return Errorf("a DNS message that is no answer to what was asked");
  }
  DnsAnswer answer;
  answer.raw_code = flags & 0xf;
  answer.code = static_cast<DnsCode>(flags & 0xf);
  answer.truncated = (flags & kFlagTruncated) != 0;
  // An alias stands before what it stands for.
  std::set<std::string> names = {question.name};
  for (size_t i = 0; i < std::min<size_t>(records, kMaxRecords); ++i) {
    std::string owner = reader.Name();
    uint16_t kind = reader.Get16();
    uint16_t record_class = reader.Get16();
    uint32_t ttl = reader.Get32();
    uint16_t size = reader.Get16();
    if (!reader.ok()) return Errorf("a DNS record that is cut short");
    size_t start = reader.at();
    bool is_named = record_class == kClassIn && names.contains(owner);
    if (is_named && kind == kTypeCname) {
      std::string alias = reader.Name();
      if (!reader.ok() || reader.at() > start + size) return Errorf("a DNS alias that cannot be");
      names.insert(std::move(alias));
    } else if (is_named && kind == kDnsTypeA && size == 4) {
      uint32_t address = reader.Get32();
      if (reader.ok() && answer.addresses.size() < kMaxAddresses) {
        answer.addresses.push_back({htonl(address), ttl});
      }
    } else if (is_named && kind == kDnsTypeAaaa && size == 16) {
      bpf::address6 address;
      for (uint32_t& word : address.words) word = htonl(reader.Get32());
      if (reader.ok() && answer.addresses6.size() < kMaxAddresses) {
        answer.addresses6.push_back({address, ttl});
      }
    } else {
      reader.Skip(size);
    }
    if (!reader.ok()) return Errorf("a DNS record that is cut short");
    // What a record has beyond its alias is passed over.
    if (reader.at() < start + size) reader.Skip(start + size - reader.at());
  }
  if (!reader.ok()) return Errorf("a DNS record that is cut short");
  return answer;
}

std::vector<uint8_t> MakeDnsQuery(const DnsQuestion& question, uint16_t id) {
  std::vector<uint8_t> bytes = Header(id, kFlagRecursion, 0);
  bytes.insert(bytes.end(), question.bytes.begin(), question.bytes.end());
  return bytes;
}

std::vector<uint8_t> MakeDnsAnswer(const DnsQuestion& question, DnsCode code,
                                   const std::vector<DnsAddress>& addresses,
                                   const std::vector<DnsAddress6>& addresses6) {
  uint16_t flags = kFlagAnswer | kFlagRecursive | static_cast<uint16_t>(code);
  if (question.recursion_desired) flags |= kFlagRecursion;
  std::vector<uint8_t> bytes = Header(question.id, flags, addresses.size() + addresses6.size());
  bytes.insert(bytes.end(), question.bytes.begin(), question.bytes.end());
  for (const DnsAddress& each : addresses) PutRecord(&bytes, kDnsTypeA, each);
  for (const DnsAddress6& each : addresses6) PutRecord(&bytes, kDnsTypeAaaa, each);
  return bytes;
}

std::vector<uint8_t> MakeDnsError(const DnsQuestion& question, uint8_t code) {
  return MakeDnsAnswer(question, static_cast<DnsCode>(code & 0xf));
}

}  // namespace cube::net
