package blockstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"millrace/hdfs"
)

// What lies in a disk's folder:
//
//	disk.json                     whose disk it is
//	lock                          held by the process that has it
//	probe                         written when it is doubted that the disk takes writes
//	blocks/2a/b-000…2a.7/         a final replica, in the folder of its id's last byte
//	  data, sums
//	writing/b-000…2b.9/           an unfinished one
//	  data, sums
//
// A replica is a folder so that one rename makes both of its files visible, final or under a new stamp.
const (
	diskFile   = "disk.json"
	lockFile   = "lock"
	probeFile  = "probe"
	blocksDir  = "blocks"
	writingDir = "writing"
	dataFile   = "data"
	sumsFile   = "sums"
)

// Format is the arrangement of a disk's folder that this program knows.
const Format = 1

// Why Open refuses a folder.
var (
	ErrNewer   = errors.New("written by a newer millrace")
	ErrForeign = errors.New("belongs to another cluster")
)

// identity is what disk.json says.
type identity struct {
	Format  int    `json:"format"`
	Cluster string `json:"cluster"`
	Disk    string `json:"disk"` // random, for ever
}

func (i identity) encode() []byte {
	data, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		panic(err) // strings and an int
	}
	return append(data, '\n')
}

// decodeIdentity reads a disk.json and refuses one that is not of this cluster and format.
func decodeIdentity(data []byte, cluster string) (identity, error) {
	var i identity
	if err := json.Unmarshal(data, &i); err != nil {
		return identity{}, fmt.Errorf("it is damaged (%w): write it again with the format, cluster and disk that it had, or empty the folder", err)
	}
	switch {
	case i.Format > Format:
		return identity{}, fmt.Errorf("%w: it has format %d, this program knows %d: start the version that has written it, or a later one", ErrNewer, i.Format, Format)
	case i.Format < 1 || i.Cluster == "" || i.Disk == "":
		return identity{}, errors.New("it is damaged (format, cluster and disk must be there): write it again as it was, or empty the folder")
	case i.Cluster != cluster:
		return identity{}, fmt.Errorf("%w: it has blocks of %s, this node is in %s: name another folder, or empty this one if those blocks are needed no more", ErrForeign, i.Cluster, cluster)
	}
	return i, nil
}

// replicaName is the folder of a replica.
func replicaName(id hdfs.BlockID, stamp hdfs.Stamp) string { return fmt.Sprintf("%s.%d", id, stamp) }

// parseReplicaName says no to anything that replicaName does not give.
func parseReplicaName(name string) (hdfs.BlockID, hdfs.Stamp, bool) {
	hex, stamp, ok := strings.Cut(strings.TrimPrefix(name, "b-"), ".")
	if !ok {
		return 0, 0, false
	}
	id, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		return 0, 0, false
	}
	s, err := strconv.ParseUint(stamp, 10, 64)
	if err != nil || replicaName(hdfs.BlockID(id), hdfs.Stamp(s)) != name {
		return 0, 0, false
	}
	return hdfs.BlockID(id), hdfs.Stamp(s), true
}

// shelf is the folder in blocks/ for the id.
func shelf(id hdfs.BlockID) string { return fmt.Sprintf("%02x", byte(id)) }

func (d *disk) shelfPath(id hdfs.BlockID) string { return filepath.Join(d.root, blocksDir, shelf(id)) }

func (d *disk) finalPath(id hdfs.BlockID, stamp hdfs.Stamp) string {
	return filepath.Join(d.shelfPath(id), replicaName(id, stamp))
}

func (d *disk) writingPath(id hdfs.BlockID, stamp hdfs.Stamp) string {
	return filepath.Join(d.root, writingDir, replicaName(id, stamp))
}
