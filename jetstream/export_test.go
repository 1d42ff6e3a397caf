package jetstream

import (
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
)

// What the black-box tests need of the inside.
var (
	EncodeCommit = encodeCommit
	Older        = older
	Transient    = transient
	Contiguous   = contiguous
)

// NewStoreForTest is a store that was never opened: it only names things.
func NewStoreForTest(name, id string, partitions int) *Store {
	return &Store{name: name, id: id, prefix: name + ".event.", partitions: partitions}
}

// StreamConfigForTest is what Open makes, with the metadata that belongs to it.
func StreamConfigForTest(c Config) natsjs.StreamConfig {
	g := genesis{Store: newStoreID(), Format: FormatVersion, Codec: c.Codec.String(), Partitions: PartitionsDefault}
	return streamConfig(c.withDefaults(), g)
}

// AllHeaders lists the headers that the format gives a meaning to.
var AllHeaders = []string{
	headerCommit, headerChain, headerEvents, headerFormat, headerOrigin, headerTx, headerContentType, headerTrace,
	headerExpected,
}

// ForgedCommit is a message as a writer of another language might send it.
func ForgedCommit(subject string, c *Commit) (*nats.Msg, error) {
	return encodeCommit(subject, c, Msgpack)
}
