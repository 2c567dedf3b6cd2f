// The socket device's queues: packets from the guest, packets to it, events.
#include <algorithm>
#include <utility>

#include "devices/vsock/vsock.h"

namespace cube::devices {

using vsock::kOpReset;
using vsock::Ports;

namespace {

// Packets of a queue until the event loop's other descriptors have a turn.
constexpr uint32_t kTurn = 256;
// Buffers of the guest's that one read fills, once a connection has shown to have much to say.
constexpr uint32_t kMaxBurst = 16;
// A receive buffer that cannot hold a byte is of no use.
constexpr uint32_t kMinReceiveBuffer = sizeof(vsock::Header) + 1;

}  // namespace

void Vsock::ProcessQueue(uint32_t index) {
  if (index == vsock::kTxQueue) transmit_pending_ = true;
  Work();
}

void Vsock::Work() {
  if (active_ && !paused_ && !broken_) {
    SendEvent();
    // What the guest is owed goes first: it is what holds up the packets it sent.
    if (!resets_.empty()) FillReceiveQueue();
    ProcessTransmitted();
    FillReceiveQueue();
    // Both at the end: one interrupt, most often, for all of it.
    host().queue(vsock::kTxQueue).Notify();
    host().queue(vsock::kRxQueue).Notify();
  }
  for (size_t i = 0; i < dirty_.size(); ++i) {
    Connection* connection = dirty_[i];
    connection->dirty = false;
    if (connection->state() != State::kDead) UpdateWatched(connection);
  }
  dirty_.clear();
  Bury();
  WatchListener();
}

// ---- from the guest

void Vsock::ProcessTransmitted() {
  virtio::Virtqueue& queue = host().queue(vsock::kTxQueue);
  if (!queue.usable()) transmit_pending_ = false;
  if (!transmit_pending_) return;
  queue.DisableKicks();
  for (uint32_t turn = 0; turn < kTurn; ++turn) {
    // Without buffers to answer in, packets stay where they are (5.10.6.1.2). The next receive
    // buffer that comes goes on here.
    if (resets_.size() >= kMaxResets) return;
    if (queue.Pop(&chain_)) {
      HandlePacket(chain_);
      queue.Push(&chain_, 0);
    } else if (!queue.EnableKicks()) {
      transmit_pending_ = false;
      return;
    } else {
      queue.DisableKicks();
    }
  }
  SignalEventFd(work_.get());
}

void Vsock::HandlePacket(const virtio::DescriptorChain& chain) {
  ++counts_.packets_from_guest;
  auto header = chain.ReadObject<Header>(0);
  // A packet that says to be from elsewhere has no sender who could be answered.
  if (!header || header->src_cid != config_.guest_cid) {
    ++counts_.malformed;
    return;
  }
  // 5.10.6.4.2: what is not known is answered by a reset, and so is what goes to nobody.
  bool known = header->type == vsock::kTypeStream && header->dst_cid == vsock::kHostCid;
  Connection* connection = known ? Find({header->src_port, header->dst_port}) : nullptr;
  bool lies = header->op == vsock::kOpData && header->len > chain.readable_size() - sizeof *header;
  if (!known || lies) {
    ++counts_.malformed;
    if (connection != nullptr) {
      Abort(connection);
    } else if (header->op != kOpReset) {
      Refuse(*header);
    }
    return;
  }
  if (connection != nullptr) {
    HandleConnected(connection, *header, chain);
  } else if (header->op == vsock::kOpRequest) {
    ConnectToHost(*header);
  } else if (header->op != kOpReset) {
    Refuse(*header);
  }
}

void Vsock::HandleConnected(Connection* connection, const Header& header,
                            const virtio::DescriptorChain& chain) {
  if (header.op == kOpReset) {
    if (connection->state() == State::kRequested) ++counts_.refused;
    connection->Kill();
    Forget(connection);
    return;
  }
  bool expected = connection->UpdateCredit(header);
  bool up = connection->state() == State::kEstablished || connection->state() == State::kClosing;
  switch (header.op) {
    case vsock::kOpResponse:
      expected = expected && connection->state() == State::kRequested;
      if (expected) GuestAccepted(connection);
      break;
    case vsock::kOpShutdown:
      if (!expected || !up) break;
      connection->GuestShutDown(header.flags);
      if (connection->guest_shutdown() == vsock::kShutdownBoth) {
        // 5.10.6.5: an end of both ways is answered by a reset, after which the ports are free.
        resets_.push_back(connection->MakeHeader(kOpReset));
        connection->GuestClosed();
        Forget(connection);
        return;
      }
      break;
    case vsock::kOpData:
      expected = expected && up && connection->TakeData(chain, header.len, &iovecs_);
      if (expected) counts_.bytes_to_host += header.len;
      break;
    case vsock::kOpCreditUpdate:
      break;
    case vsock::kOpCreditRequest:
      connection->RequestCreditUpdate();
      break;
    default:  // a second request, or no operation that there is
      expected = false;
      break;
  }
  if (!expected || (!up && connection->state() != State::kEstablished)) {
    ++counts_.malformed;
    Abort(connection);
    return;
  }
  Touch(connection);
}

// ---- to the guest

void Vsock::FillReceiveQueue() {
  virtio::Virtqueue& queue = host().queue(vsock::kRxQueue);
  if (!queue.usable()) return;
  queue.DisableKicks();
  for (uint32_t turn = 0; HasReceiveWork(); ++turn) {
    if (turn == kTurn) {
      SignalEventFd(work_.get());
      return;
    }
    if (SendOne()) continue;
    // The driver has no buffer left, and says when it has.
    if (!queue.EnableKicks()) return;
    queue.DisableKicks();
  }
  if (transmit_pending_ && resets_.empty()) SignalEventFd(work_.get());
}

// One packet, or a burst of data. False if there is no buffer.
bool Vsock::SendOne() {
  if (!host().queue(vsock::kRxQueue).HasAvailable()) return false;
  if (!resets_.empty()) {
    ++counts_.resets;
    SendHeader(resets_.front());
    resets_.pop_front();
    return true;
  }
  Connection* connection = ready_.front();
  ready_.pop_front();
  connection->queued = false;
  if (auto header = connection->NextControl()) {
    SendHeader(*header);
    if (connection->state() == State::kClosing) {
      connection->deadline = Now() + config_.timeout;
      Arm(connection->deadline);
    }
  } else if (connection->CanRead()) {
    counts_.bytes_to_guest += SendData(connection);
    if (connection->state() == State::kDead) {
      Abort(connection);
      return true;
    }
  }
  Touch(connection);
  return true;
}

// Nothing more is done until the driver has reset the device.
void Vsock::Break(const Error& error) {
  broken_ = true;
  host().Fail(error);
}

bool Vsock::PopReceiveChain(virtio::DescriptorChain* chain) {
  virtio::Virtqueue& queue = host().queue(vsock::kRxQueue);
  if (!queue.Pop(chain)) return false;
  if (chain->writable_size() >= kMinReceiveBuffer) return true;
  Break(Errorf("receive buffer of %u bytes, at least %u are needed", chain->writable_size(),
               kMinReceiveBuffer));
  queue.UndoPop(chain);
  return false;
}

void Vsock::SendHeader(const Header& header) {
  if (!PopReceiveChain(&chain_)) return;
  chain_.WriteObject(0, header);
  host().queue(vsock::kRxQueue).Push(&chain_, sizeof header);
  ++counts_.packets_to_guest;
}

// Reads from the host's socket straight into as many of the guest's buffers as there is use for.
uint32_t Vsock::SendData(Connection* connection) {
  virtio::Virtqueue& queue = host().queue(vsock::kRxQueue);
  receive_chains_.resize(kMaxBurst);
  iovecs_.clear();
  uint32_t chains = 0, room = 0;
  for (; chains < connection->burst && room < connection->guest_credit(); ++chains) {
    virtio::DescriptorChain& chain = receive_chains_[chains];
    if (!PopReceiveChain(&chain)) break;
    uint32_t size = std::min(chain.writable_size() - static_cast<uint32_t>(sizeof(Header)),
                             Connection::kMaxPacket);
    room += static_cast<uint32_t>(chain.WritableIovecs(sizeof(Header), size, &iovecs_));
  }
  uint32_t got = chains == 0 ? 0 : connection->ReadData(iovecs_);
  // Those that are not used go back, the last one first.
  uint32_t used = 0;
  for (uint32_t covered = 0; covered < got; ++used) {
    covered +=
        std::min(receive_chains_[used].writable_size() - static_cast<uint32_t>(sizeof(Header)),
                 Connection::kMaxPacket);
  }
  for (uint32_t i = chains; i-- > used;) queue.UndoPop(&receive_chains_[i]);
  for (uint32_t i = 0, left = got; i < used; ++i) {
    virtio::DescriptorChain& chain = receive_chains_[i];
    uint32_t size = std::min({chain.writable_size() - static_cast<uint32_t>(sizeof(Header)),
                              Connection::kMaxPacket, left});
    chain.WriteObject(0, connection->DataHeader(size));
    queue.Push(&chain, static_cast<uint32_t>(sizeof(Header)) + size);
    left -= size;
  }
  counts_.packets_to_guest += used;
  connection->burst = used == connection->burst ? kMaxBurst : std::max(used, 1u);
  return got;
}

// ---- events

void Vsock::SendEvent() {
  virtio::Virtqueue& queue = host().queue(vsock::kEventQueue);
  if (!queue.usable()) return;
  if (reset_event_due_) {
    if (!queue.Pop(&chain_)) {
      if (queue.EnableKicks()) SignalEventFd(work_.get());
      return;
    }
    vsock::Event event = {vsock::kEventTransportReset};
    if (!chain_.WriteObject(0, event)) {
      Break(Errorf("event buffer of %u bytes, at least %zu are needed", chain_.writable_size(),
                   sizeof event));
      queue.UndoPop(&chain_);
      return;
    }
    // The driver gives the buffer back after it has reset its sockets.
    ++resets_unhandled_;
    handled_index_ = static_cast<uint16_t>(queue.AvailableIndex() + resets_unhandled_);
    queue.Push(&chain_, sizeof event);
    queue.EnableKicksForMore();
    queue.Notify();
    reset_event_due_ = false;
  }
  if (!holding_) return;
  if (!ResetsHandled()) queue.EnableKicksForMore();
  if (ResetsHandled()) StopHolding();
}

// Whether the driver has given the event buffers back.
bool Vsock::ResetsHandled() {
  virtio::Virtqueue& queue = host().queue(vsock::kEventQueue);
  return queue.usable() && static_cast<int16_t>(queue.AvailableIndex() - handled_index_) >= 0;
}

}  // namespace cube::devices
