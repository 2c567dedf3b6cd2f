#include <cstdlib>

#include "net/client_name.h"
#include "net/dns_message.h"
#include "net/policy.h"

// What was read can be written, and reads back; a name is one that a list could have.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cube::net;
  if (size == 0) return 0;
  std::span<const uint8_t> bytes(data + 1, size - 1);
  if (data[0] % 3 == 0) {
    auto question = ParseDnsQuery(bytes);
    if (!question.ok()) return 0;
    auto again = ParseDnsQuery(MakeDnsQuery(*question, question->id));
    if (!again.ok() || again->name != question->name || again->type != question->type) abort();
    (void)ParseDnsAnswer(bytes, *question, question->id);
    const std::vector<DnsAddress> addresses = {{1, 2}, {3, 4}};
    auto made = MakeDnsAnswer(*question, DnsCode::kNoError, addresses);
    auto read = ParseDnsAnswer(made, *question, question->id);
    if (!read.ok() || read->addresses != addresses) abort();
  } else if (data[0] % 3 == 1) {
    auto question = ParseDnsQuery(MakeDnsQuery({1, true, "", 1, {1, 'a', 0, 0, 1, 0, 1}}, 1));
    if (!question.ok()) abort();
    (void)ParseDnsAnswer(bytes, *question, 1);
  }
  for (const ClientName& name : {ReadTlsName(bytes), ReadHttpName(bytes)}) {
    if (name.state != ClientName::kKnown) continue;
    if (ParseDomain(name.name).value() != name.name || name.name[0] == '*') abort();
    if (name.consumed > bytes.size()) abort();
    if (name.consumed == 0) continue;
    // What is sent in its place reads as the same.
    std::span<const uint8_t> head(reinterpret_cast<const uint8_t*>(name.head.data()),
                                  name.head.size());
    ClientName again = ReadHttpName(head);
    if (again.state != ClientName::kKnown || again.name != name.name) abort();
  }
  return 0;
}
