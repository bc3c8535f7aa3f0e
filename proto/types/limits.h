// Every limit of Reprise, named, with its unit last. Nothing else in the tree has a literal limit.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"

namespace reprise::limits {

// ---- Messages
inline constexpr size_t kPromptBlocksMax = 65'536;    // keys in one verb: 1 Mi tokens at 16 a block
inline constexpr size_t kStreamChunkBytes = 1 << 20;  // payload of one Read or Write message
inline constexpr size_t kStreamChunkBytesMax = 1 << 20;  // larger ones are refused
inline constexpr size_t kMessageBytesMax =               // largest gRPC message either way
    kPromptBlocksMax * 32                                //   keys of a prompt
    + kPromptBlocksMax * 16 * 5                          //   its tokens as varints, at most
    + (64 << 10);                                        //   everything else
inline constexpr size_t kMetadataBytesMax = 16 << 10;
inline constexpr size_t kNameBytesMax = 128;      // client, shard and session names
inline constexpr size_t kSpecTextBytesMax = 512;  // each text field of a cache spec
inline constexpr size_t kTenantBytesMax = 2048;   // what SPIFFE allows an id

// ---- Blocks
inline constexpr uint64_t kBlockBytesMin =
    256;  // smaller specs are refused: index would outweigh them
inline constexpr uint64_t kBlockBytesMax = 64ull << 20;
inline constexpr uint32_t kBlockTokensMax = 4096;
inline constexpr uint32_t kLayersMax = 4096;
inline constexpr uint32_t kKvHeadsMax = 65'536;
inline constexpr uint32_t kHeadDimMax = 65'536;
inline constexpr uint32_t kParallelSizeMax = 65'536;
inline constexpr uint64_t kRowAlignBytes = 16;

// ---- Leases, reservations, attachments
inline constexpr absl::Duration kLeaseTtl = absl::Seconds(10);
inline constexpr absl::Duration kLeaseTtlMax = absl::Seconds(60);
inline constexpr absl::Duration kLeaseAgeMax =
    absl::Minutes(5);  // keep-alives do not extend it further
inline constexpr absl::Duration kReservationTtl = absl::Seconds(30);
inline constexpr absl::Duration kReservationTtlMax = absl::Minutes(2);
inline constexpr absl::Duration kReservationAgeMax =
    absl::Minutes(5);  // commits of a part do not extend it further
inline constexpr absl::Duration kKeepAliveInterval = absl::Seconds(2);
inline constexpr int kKeepAlivesMissedMax = 3;  // then the attachment ends
inline constexpr size_t kAttachmentsMax = 4096;
inline constexpr size_t kLeasesPerAttachmentMax = 65'536;
inline constexpr size_t kReservationsPerAttachmentMax = 4096;
inline constexpr size_t kSpecsPerAttachmentMax = 256;
inline constexpr size_t kSpecsPerTenantMax = 1024;

// ---- Memory of a shard
inline constexpr double kEvictHighWatermark = 0.95;   // of a pool: background eviction starts
inline constexpr double kEvictLowWatermark = 0.90;    //   and stops
inline constexpr size_t kEvictBatchBlocks = 64;       // evicted under one hold of the engine's lock
inline constexpr size_t kDemoteBatchBlocks = 64;      // on their way to a slower tier at one time
inline constexpr size_t kHbmChecksumBlocksMax = 256;  // checksummed by one launch at Commit
inline constexpr uint64_t kSlotAlignBytes = 64;
inline constexpr uint64_t kExtentsPerPool = 32;          // a pool is cut into about as many extents
inline constexpr uint64_t kExtentBytesMin = 2ull << 20;  //   of at least this
inline constexpr uint64_t kExtentBytesMax = 1ull << 30;  //   and at most this,
inline constexpr uint64_t kFileExtentBytesMax = 64ull
                                                << 20;   //   of a file: it may be moved at once
inline constexpr uint64_t kFileCipherBytes = 256 << 10;  // enciphered at a time, per thread
inline constexpr size_t kQuarantinedSlotsMax = 256;      // beyond it the oldest one is used again
inline constexpr size_t kExplainSiblingsMax = 65'536;    // blocks compared with a miss
inline constexpr size_t kIndexStripes = 16;
inline constexpr size_t kTombstonesMax = 65'536;  // evicted keys remembered for Explain

// ---- A disk that is kept over restarts
inline constexpr size_t kDiskKeyBytesMin = 32;
inline constexpr size_t kDiskKeyBytesMax = 4096;
inline constexpr absl::Duration kJournalInterval = absl::Milliseconds(200);  // at most so much late
inline constexpr size_t kJournalBatchBlocks = 1024;  // noted under one hold of the engine's lock
inline constexpr size_t kJournalMessageBytes = 1 << 20;           // a batch that is longer is cut
inline constexpr size_t kJournalFrameBytesMax = 16 << 20;         // longer ones are damage
inline constexpr uint64_t kJournalRewriteBytesMin = 16ull << 20;  // until then none is rewritten
inline constexpr int kJournalRewriteFactor = 3;  // of what a new one takes: then it is
inline constexpr uint64_t kScrubBytesPerSecond = 1024ull
                                                 << 20;  // read after a crash, in the background
inline constexpr absl::Duration kJournalPatience = absl::Seconds(5);  // of a Remove, for the disk
inline constexpr int kSaveThreads = 4;  // that write memory to the disk when a shard stops
inline constexpr absl::Duration kSaveGrace = absl::Minutes(2);  // for that, unless told otherwise

// ---- Claims: blocks that callers want kept
inline constexpr uint32_t kClaimPriority = 50;      // of a Retain that names none
inline constexpr uint32_t kClaimPriorityMax = 100;  // stays longest
inline constexpr absl::Duration kClaimTtlMax = absl::Hours(24 * 30);
inline constexpr double kClaimedShare = 0.5;  // of a shard's memory and of a tenant's quota, that
inline constexpr double kPinnedShare = 0.5;   //   claims may hold, and of that what pins may hold
inline constexpr size_t kClaimsMax = 16'384;  // of a shard
inline constexpr double kClaimsTenantShare = 0.5;      // of both, that one tenant may have
inline constexpr size_t kDemoteHintBlocksMax = 1024;   // moved for one hint
inline constexpr size_t kClaimKeysAheadMax = 1 << 20;  // keys that claims wait for, of a shard

// ---- What a shard drops first, and what other amounts of memory would have kept
inline constexpr uint32_t kReuseClasses = 4;    // blocks used once, twice, ..., this often or more
inline constexpr uint32_t kReuseAgeSteps = 4;   // ages told apart within each doubling
inline constexpr double kReuseDecay = 0.9;      // of what was learned, at each refit
inline constexpr double kReusePriorBlocks = 5;  // seen to come back at each age, before any was
inline constexpr uint64_t kReuseRefitUsesMin = 512;    // a refit comes after so many uses, or after
inline constexpr double kReuseRefitBlocksShare = 0.5;  //   this share of the stored blocks in uses
inline constexpr absl::Duration kReuseApart = absl::Seconds(1);  // closer uses are one request's
inline constexpr size_t kGhostsPerBlock = 5;       // evicted blocks remembered, to be learned
inline constexpr size_t kGhostsMax = 1'000'000;    //   from: about 64 bytes each
inline constexpr size_t kSizingSamplesMax = 8192;  // blocks followed (SHARDS, FAST 2015)

// ---- Watching
inline constexpr size_t kWatchersMax = 64;
inline constexpr size_t kWatchQueueEventsMax =
    16'384;                                    // a watcher that falls behind further is cut off
inline constexpr size_t kEventKeysMax = 4096;  // keys in one event
inline constexpr absl::Duration kHeartbeatInterval = absl::Milliseconds(500);
inline constexpr int kHeartbeatsMissedMax = 2;  // then a router calls the shard dead

// ---- Routing
inline constexpr size_t kShardsMax = 1024;
inline constexpr double kShardWeightMax = 1000.0;  // of one shard against another's 1
inline constexpr size_t kMembersFileBytesMax = 1 << 20;
inline constexpr absl::Duration kMembersPollInterval = absl::Milliseconds(200);  // of the file
inline constexpr absl::Duration kMembersDnsInterval = absl::Seconds(5);  // between two questions,
inline constexpr absl::Duration kMembersDnsTimeout = absl::Seconds(3);   //   and for an answer
inline constexpr absl::Duration kRegistrationTtl =
    absl::Seconds(15);  // of a shard in etcd that says nothing; it speaks three times as often
inline constexpr absl::Duration kVanishedMemberKept =
    absl::Minutes(10);  // a member whose registration ended without a good-bye
inline constexpr absl::Duration kEtcdCallTimeout = absl::Seconds(3);
inline constexpr absl::Duration kEtcdRetryMin = absl::Milliseconds(200);
inline constexpr absl::Duration kEtcdRetryMax = absl::Seconds(5);
inline constexpr absl::Duration kEtcdWatchAge = absl::Seconds(30);       // then it is begun anew
inline constexpr absl::Duration kEtcdGoodByeTimeout = absl::Seconds(2);  // of a shard that stops
inline constexpr absl::Duration kEtcdPingInterval = absl::Seconds(10);   // etcd refuses less than 5
inline constexpr size_t kMemberRecordBytesMax = 4096;                    // of one member in etcd
inline constexpr size_t kSessionsMax = 1'000'000;
inline constexpr absl::Duration kSessionTtl = absl::Hours(1);
inline constexpr size_t kLocateRunsMax = 8;  // runs in one answer
inline constexpr size_t kRouterIndexBlocksMax =
    16'000'000;  // about 50 bytes each; further ones are not offered
inline constexpr size_t kRouterIndexStripes = 256;  // parts in which tables grow and are cleaned up
inline constexpr size_t kRouterStreamsMax =
    4 * kShardsMax;  // feeds: two of each shard, and those being cleaned up
inline constexpr size_t kRouterApplyKeys = 128;  // of an event, applied under one hold of the lock
inline constexpr double kLoadWeight =
    0.05;  // of a shard's share of recent work against a prompt's blocks
inline constexpr absl::Duration kLoadHalfLife = absl::Seconds(30);  // of what counts as recent
inline constexpr absl::Duration kMoveSetup =
    absl::Milliseconds(5);  // of bringing blocks from another shard, before the first one
inline constexpr absl::Duration kDeadShardMemory =
    absl::Minutes(10);  // then a silent shard's blocks are forgotten
inline constexpr absl::Duration kRouterTickInterval = absl::Milliseconds(50);
inline constexpr absl::Duration kWatchSilenceMax =
    absl::Seconds(5);  // then a feed is broken off and begun anew
inline constexpr absl::Duration kWatchRetryMin = absl::Milliseconds(100);
inline constexpr absl::Duration kWatchRetryMax = absl::Seconds(2);
inline constexpr size_t kTopologyWatchersMax = 4096;

// ---- Work in flight
inline constexpr size_t kUnaryCallsMax = 256;       // beyond it calls are refused at once
inline constexpr size_t kUnaryWriteCallsMax = 192;  // of them: overload refuses writes first
inline constexpr size_t kReadStreamsMax = 64;
inline constexpr size_t kWriteStreamsMax = 48;  // fewer than reads: overload refuses writes first
inline constexpr size_t kStreamsPerConnectionMax = 1024;               // HTTP/2 streams
inline constexpr absl::Duration kByteStreamAgeMax = absl::Minutes(5);  // one Read or Write call
inline constexpr size_t kShardWorkers = 2;  // threads for checksums and scans
inline constexpr size_t kDiskReadsMax =
    32;  // fewer than streams: a disk that hangs leaves room for the rest
inline constexpr size_t kDiskReaders = 4;  // threads that read the disk tier for the stream lane
inline constexpr absl::Duration kTickInterval = absl::Milliseconds(250);
inline constexpr absl::Duration kStopGrace = absl::Seconds(5);  // for what is in flight at SIGTERM
inline constexpr absl::Duration kStopFlush = absl::Milliseconds(200);  // for last words to clients
inline constexpr absl::Duration kRetryAfter =
    absl::Milliseconds(50);  // hint given with RESOURCE_EXHAUSTED
inline constexpr absl::Duration kPingInterval =
    absl::Seconds(20);  // HTTP/2 pings of an idle connection
inline constexpr absl::Duration kPingTimeout =
    absl::Seconds(5);  //   unanswered: the connection is dead
inline constexpr absl::Duration kPingIntervalMin =
    absl::Seconds(10);  // a client that pings faster is cut off
inline constexpr absl::Duration kReconnectMin = absl::Milliseconds(100);
inline constexpr absl::Duration kReconnectMax = absl::Seconds(2);
inline constexpr uint32_t kReplicationMax = 16;  // copies of a block
inline constexpr size_t kReplicationQueueBlocksMax = 16'384;
inline constexpr absl::Duration kReplicationDeadline = absl::Seconds(10);
inline constexpr size_t kReplicationThreads = 2;  // a peer that hangs holds up half of the chains
inline constexpr absl::Duration kPeerConnectTimeout = absl::Seconds(1);
inline constexpr size_t kPeerTenantsMax = 64;  // links of a shard to one peer, one for each tenant
inline constexpr absl::Duration kTlsReloadInterval = absl::Seconds(10);  // of certificate files
inline constexpr absl::Duration kDrainDeadline =
    absl::Minutes(10);                     // to hand blocks over, of a Drain that names none
inline constexpr int kDrainRoundsMax = 3;  // over all that is stored, for what came meanwhile
inline constexpr absl::Duration kDrainDeadlineMax = absl::Hours(24);
inline constexpr size_t kPullThreads = 2;
inline constexpr size_t kPullsMax = 16;  // under way or waiting; more are refused
inline constexpr absl::Duration kPullDeadline =
    absl::Seconds(10);                      // of a caller that names a later one
inline constexpr size_t kPullPeersMax = 3;  // asked for a chain that nobody said who has it

// ---- Lanes
inline constexpr size_t kStagingChunksMax = 16;    // of kStreamChunkBytes, kept by one stream lane
inline constexpr double kLaneDeadlineShare = 0.5;  // of the time left, for a lane with a successor
inline constexpr uint64_t kLargeJobBytes = 64 << 20;  // stands in where a job's size is unknown
// What one job costs on a lane, before its first byte and per byte, until it was measured.
inline constexpr absl::Duration kViewSetup = absl::Microseconds(30);
inline constexpr absl::Duration kNcclSetup = absl::Microseconds(50);
inline constexpr absl::Duration kStreamSetup = absl::Microseconds(200);
inline constexpr absl::Duration kTcpSetup = absl::Microseconds(60);
inline constexpr double kViewBytesPerSecond = 8e9;
inline constexpr double kDeviceViewBytesPerSecond = 100e9;  // one GPU, or two with peer access
inline constexpr double kNcclBytesPerSecond = 10e9;
inline constexpr double kStreamBytesPerSecond = 1e9;
inline constexpr double kTcpBytesPerSecond = 2e9;
inline constexpr uint64_t kRateJobBytesMin = 1 << 20;                // smaller jobs tell no rate
inline constexpr double kRateHalfLifeBytes = 256 << 20;              // newer bytes count more
inline constexpr absl::Duration kRateAgeMax = absl::Minutes(1);      // then it is as never measured
inline constexpr absl::Duration kPollMax = absl::Milliseconds(500);  // one wait for a descriptor
inline constexpr size_t kStatusTextBytesMax = 512;  // each text in a status, beside gRPC

// ---- View lane
inline constexpr size_t kViewConnectionsMax = 256;       // of a shard; each has a thread
inline constexpr size_t kViewConnectionsPerLaneMax = 4;  // calls beyond it wait for one
inline constexpr size_t kViewMappedExtentsMax = 1024;    // of a caller; the oldest are unmapped
inline constexpr size_t kViewMessageBytesMax =           // largest message either way
    kPromptBlocksMax * 20                                //   a place per block of a prompt
    + (4 << 10);                                         //   everything else
inline constexpr absl::Duration kViewHelloTimeout = absl::Seconds(1);
inline constexpr absl::Duration kViewAnswerTimeout =
    absl::Seconds(5);  // of a caller that does not read
inline constexpr absl::Duration kViewOpeningAgeMax =
    absl::Minutes(1);  // then its pins are taken away
inline constexpr absl::Duration kViewIdleMax = absl::Minutes(5);
inline constexpr absl::Duration kViewRetryAfter =
    absl::Seconds(1);  // of a socket that did not answer
inline constexpr absl::Duration kViewDeviceRetryAfter =
    absl::Seconds(10);  // of device memory that could not be mapped, host memory not pinned
inline constexpr absl::Duration kViewPinCheckInterval =
    absl::Seconds(1);  // whether what is pinned is still the shard's

// ---- TCP lane
inline constexpr size_t kTcpConnectionsMax =
    512;  // of a shard; each has a thread; one more closes one that says nothing
inline constexpr size_t kTcpWritesMax = 384;  // at once; fewer than connections: overload refuses
                                              //   writes first
inline constexpr size_t kTcpConnectionsPerLaneMax = 4;  // calls beyond it wait for one
inline constexpr size_t kTcpConnectionsPerAttachmentMax =
    2 * kTcpConnectionsPerLaneMax;                          // those that end are not over at once
inline constexpr size_t kTcpMessageBytesMax = 2 << 10;      // beside blocks and verbs
inline constexpr size_t kTcpVerbBytesMax = 256 << 10;       // a longer request goes over gRPC
inline constexpr size_t kTcpKeyBytes = 32;                  // of TLS, one for each attachment
inline constexpr uint64_t kTcpTlsBatchBytes = 64 << 10;     // encrypted and sent in one go
inline constexpr uint64_t kTcpTlsRekeyBytes = 64ull << 30;  // sent under one key, then the next
inline constexpr absl::Duration kTcpHelloTimeout =
    absl::Seconds(1);  // from the connection's begin to the hello, however it trickles in
inline constexpr absl::Duration kTcpDialTimeout = absl::Milliseconds(500);  // of a caller
inline constexpr absl::Duration kTcpFrameTimeout =
    absl::Seconds(30);  // of a message or a block in the middle of a call
inline constexpr absl::Duration kTcpIdleMax = absl::Minutes(5);  // between calls
inline constexpr absl::Duration kTcpDiskWait =
    absl::Milliseconds(500);  // of a read for its turn at the disk tier
inline constexpr absl::Duration kTcpRetryMin = absl::Seconds(1);  // of a lane that failed,
inline constexpr absl::Duration kTcpRetryMax = absl::Minutes(1);  //   doubled by each next failure
inline constexpr absl::Duration kTcpProbeAfter =
    absl::Seconds(10);  // of a connection without traffic: whether its peer is still there
inline constexpr absl::Duration kTcpProbeInterval = absl::Seconds(5);
inline constexpr int kTcpProbesMax = 3;  // without an answer: the connection is dead
inline constexpr absl::Duration kTcpUnackedMax = absl::Seconds(20);  // so are bytes on their way

// ---- NCCL lane
inline constexpr size_t kNcclLinksMax = 64;                     // of a process; each has a thread
inline constexpr size_t kNcclPeerCallsMax = 2 * kNcclLinksMax;  // of a shard at once; a call waits
inline constexpr size_t kNcclLinksPerAttachmentMax = 8;         // served to one caller
inline constexpr size_t kNcclLinkQueueMax = 64;                 // transfers of a link not done yet
inline constexpr double kNcclLateFactor = 4;  // a call that has its link for this much longer than
inline constexpr absl::Duration kNcclLateMin =
    absl::Milliseconds(100);  //   its bytes should take, and for at least this long, is stuck
inline constexpr absl::Duration kNcclIdleCheckInterval =
    absl::Milliseconds(500);  // whether the peer of a link that nobody uses is still there
inline constexpr uint64_t kNcclLandingBytes = 64ull << 20;  // device memory of a caller's link
inline constexpr size_t kNcclGroupBlocksMax = 256;          // sends or receives in one group
inline constexpr uint64_t kNcclWarmBytes = 4096;            // sent each way before first use
inline constexpr absl::Duration kNcclConnectTimeout = absl::Seconds(20);  // warming included
inline constexpr absl::Duration kNcclTransferMax = absl::Seconds(10);     // of one group
inline constexpr absl::Duration kNcclIdleMax = absl::Minutes(5);          // then the link is closed
inline constexpr absl::Duration kNcclBackOffMin = absl::Seconds(1);       // after a failure,
inline constexpr absl::Duration kNcclBackOffMax = absl::Minutes(2);       //   doubled by each next
inline constexpr absl::Duration kNcclPollMin = absl::Microseconds(20);
inline constexpr absl::Duration kNcclPollMax = absl::Milliseconds(1);
inline constexpr int kNcclPollShare = 64;  // a group that took t is looked at again after t / 64
inline constexpr absl::Duration kNcclHangupTimeout = absl::Seconds(1);
inline constexpr absl::Duration kNcclStopGrace = absl::Seconds(5);  // for an abort that is stuck

// ---- Status port (plain HTTP)
inline constexpr size_t kStatusConnectionsMax = 64;  // one more closes the one that began first
inline constexpr size_t kStatusRequestBytesMax = 8 << 10;  // request line and headers
inline constexpr absl::Duration kStatusRequestTimeout =
    absl::Seconds(5);  // from the connection's begin to the request's end, however it trickles in
inline constexpr absl::Duration kStatusResponseTimeout =
    absl::Seconds(10);  // to take the whole answer
inline constexpr absl::Duration kStatusLingerMax =
    absl::Seconds(1);  // for the client to close first, after the answer
inline constexpr absl::Duration kLivenessSilenceMax =
    absl::Seconds(30);  // since the last tick: then the process is not well

// ---- Allocator of the server processes (mallopt)
inline constexpr int kMallocMmapThresholdBytes = 32 << 20;  // the most that glibc takes
inline constexpr int kMallocTrimThresholdBytes = 512 << 20;
inline constexpr int kMallocTopPadBytes = 64 << 20;

// ---- Clients
inline constexpr absl::Duration kClientDeadline = absl::Seconds(5);
inline constexpr absl::Duration kCallDeadlineMax = absl::Minutes(10);  // later deadlines are cut
inline constexpr int kBreakerFailuresMax = 3;  // in a row: the shard is a miss for a while
inline constexpr absl::Duration kBreakerOpenMin = absl::Milliseconds(500);
inline constexpr absl::Duration kBreakerOpenMax = absl::Seconds(30);
inline constexpr size_t kClientThreads = 4;
inline constexpr size_t kClientThreadsMax = 256;
inline constexpr size_t kClientQueueJobsMax = 1024;
inline constexpr absl::Duration kHungCallMin =
    absl::Milliseconds(250);  // a call with this much time that times
                              //   out says that the shard hangs
inline constexpr absl::Duration kConnectDeadline =
    absl::Seconds(2);  // to attach to one shard, whoever waits for it
inline constexpr absl::Duration kBackOffMin = absl::Milliseconds(2);  // between tries of one call
inline constexpr absl::Duration kBackOffMax = absl::Milliseconds(100);
inline constexpr absl::Duration kRouteTtl =
    absl::Seconds(1);  // a session's home is asked for again after it
inline constexpr size_t kRoutesCachedMax = 4096;
inline constexpr uint64_t kStoreBatchBytes =
    8 << 20;  // committed together, so that early blocks show
inline constexpr uint64_t kParallelFetchBytesMin =
    64 << 20;  // longer runs are read from two shards at once
inline constexpr uint64_t kStagingBytesMax = 256 << 20;  // of one block size, in one client
inline constexpr size_t kBlockingCallersStaged = 4;      // threads that call blocking forms at once
inline constexpr uint64_t kTransferChunkBytes =
    16 << 20;  // read in one call of a lane; and for that much
inline constexpr absl::Duration kTransferStallMax = absl::Seconds(1);  //   a shard has this time
inline constexpr uint64_t kTransferRateMin =
    32 << 20;  //   and what the bytes take at this rate a second
// Transfers from and to a GPU's memory.
inline constexpr uint64_t kDeviceTableBytes = 1 << 20;    // pinned: addresses, pages and checksums
inline constexpr uint64_t kDeviceScratchBytes = 4 << 20;  // of one launch's checksums
inline constexpr uint64_t kDeviceGroupBytes = 4 << 20;    // blocks staged and copied together
inline constexpr uint32_t kDeviceGroups = 3;              //   and groups under way at once
inline constexpr uint64_t kDeviceChunkBytes =
    256 << 20;  // read in one call of a lane that may reach device memory
inline constexpr uint64_t kDeviceStoreBatchBytes = 64 << 20;  // written in one, and committed
inline constexpr absl::Duration kDevicePollMin = absl::Microseconds(5);  // of the caller's stream
inline constexpr absl::Duration kDevicePollMax = absl::Microseconds(200);
inline constexpr size_t kFetchPieceBlocksMin = 8;   // fewer are not worth a second shard
inline constexpr uint64_t kFlowBytesMin = 8 << 20;  // fewer are not worth a second connection
inline constexpr size_t kStoreTargetsMax = 3;       // shards tried for one store
inline constexpr absl::Duration kCommitRetryMax =
    absl::Seconds(1);  // for another writer's parent blocks
inline constexpr absl::Duration kReleaseDeadline = absl::Seconds(1);
inline constexpr size_t kPrefetchedRunsMax = 64;
inline constexpr uint64_t kPrefillTokensMin = 64;         // computed in one go; fewer tell no rate
inline constexpr double kPrefillHalfLifeTokens = 16'384;  // newer tokens count more
inline constexpr absl::Duration kPrefetchTtl = absl::Seconds(30);
inline constexpr size_t kKeyContextBytesMax = 64 << 10;  // salt or extra of one key

}  // namespace reprise::limits
