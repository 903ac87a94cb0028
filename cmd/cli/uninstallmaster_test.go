package cli

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/master"
)

func TestAMasterOnWhichOthersCountIsNotTakenAway(t *testing.T) {
	seat := &master.Seat{ID: "i-1", Name: "m1", Site: "site-1", Votes: true, Others: 1}
	_, err := spareMaster(seat, nil, "/var/lib/millrace/master", false)
	var f *fault
	require.ErrorAs(t, err, &f)
	require.Equal(t, exitUsage, f.code)
	require.Equal(t, "this machine's master m1 (i-1) is one of the 2 that vote in site site-1: the others count on it", f.Error())
	require.Contains(t, f.next, "millrace master remove m1; then repeat this")
	require.Contains(t, f.next, "millrace uninstall --force")

	seat.Others = 0
	mind, err := spareMaster(seat, nil, "/var/lib/millrace/master", false)
	require.NoError(t, err)
	require.Contains(t, mind, "the only master of site site-1")
	require.Contains(t, mind, "/var/lib/millrace/master")
	mind, err = spareMaster(seat, nil, "/var/lib/millrace/master", true)
	require.NoError(t, err)
	require.Contains(t, mind, "which is gone")

	mind, err = spareMaster(&master.Seat{ID: "i-1", Others: 2}, nil, "", true)
	require.NoError(t, err)
	require.Empty(t, mind, "it was taken out of the set")

	mind, err = spareMaster(nil, errors.New("in use by another process"), "", true)
	require.NoError(t, err)
	require.Contains(t, mind, "it could not be told")
	require.Contains(t, mind, "in use by another process")
}
