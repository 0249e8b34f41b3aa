package api

import (
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubernetes/pkg/printers"
	printersinternal "k8s.io/kubernetes/pkg/printers/internalversion"
)

var tables = sync.OnceValue(func() *printers.HumanReadableGenerator {
	return printers.NewTableGenerator().With(printersinternal.AddHandlers)
})

// Table returns the columns that Kubernetes prints for obj, an object or a list of a served version, wide columns
// included (clients hide those by priority). Each row's Object is the versioned object itself; the caller replaces it by
// what the request's includeObject asks for. Ages are as of now.
func Table(obj runtime.Object) (*metav1.Table, error) {
	table, err := upstreamTable(obj)
	if err != nil {
		table = plainTable(obj)
	}
	i := 0
	put := func(item runtime.Object) error {
		if i >= len(table.Rows) {
			return fmt.Errorf("table of %T: more items than rows", obj)
		}
		table.Rows[i].Object = runtime.RawExtension{Object: item}
		i++
		return nil
	}
	if !meta.IsListType(obj) {
		return table, put(obj)
	}
	return table, meta.EachListItem(obj, put)
}

func upstreamTable(obj runtime.Object) (*metav1.Table, error) {
	kinds, _, err := Scheme.ObjectKinds(obj)
	if err != nil {
		return nil, err
	}
	in, err := Scheme.UnsafeConvertToVersion(obj, internalVersion(kinds[0]))
	if err != nil {
		return nil, err
	}
	return tables().GenerateTable(in, printers.GenerateOptions{Wide: true})
}

// plainTable is for kinds that upstream has no columns for: name and creation time.
func plainTable(obj runtime.Object) *metav1.Table {
	doc := metav1.ObjectMeta{}.SwaggerDoc()
	table := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name", Description: doc["name"]},
		{Name: "Created At", Type: "date", Description: doc["creationTimestamp"]},
	}}
	add := func(item runtime.Object) error {
		var cells []any
		if m, err := meta.Accessor(item); err == nil {
			cells = []any{m.GetName(), m.GetCreationTimestamp().UTC().Format(time.RFC3339)}
		}
		table.Rows = append(table.Rows, metav1.TableRow{Cells: cells})
		return nil
	}
	if m, err := meta.ListAccessor(obj); err == nil {
		table.ResourceVersion = m.GetResourceVersion()
		table.Continue = m.GetContinue()
		table.RemainingItemCount = m.GetRemainingItemCount()
		_ = meta.EachListItem(obj, add) // add never fails
		return table
	}
	if m, err := meta.CommonAccessor(obj); err == nil {
		table.ResourceVersion = m.GetResourceVersion()
	}
	_ = add(obj)
	return table
}
