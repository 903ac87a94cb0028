package blockstore

// For fuzzing what is on the disk.
var (
	DecodeHeader     = decodeHeader
	EncodeHeader     = encodeHeader
	ParseReplicaName = parseReplicaName
	ReplicaName      = replicaName
)

// DecodeIdentity reads a disk.json; it gives it back written again.
func DecodeIdentity(data []byte, cluster string) ([]byte, error) {
	i, err := decodeIdentity(data, cluster)
	if err != nil {
		return nil, err
	}
	return i.encode(), nil
}
