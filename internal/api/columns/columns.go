// Package columns says what kubectl get shows of objects: their columns, and a row of each.
//
// What flows through it: the server hands objects of one version to [Of], and gets a metav1.Table. The columns of built-in kinds are
// upstream's; those of others stand in their Resource. What must stay true: each row holds the object itself, shared and unchanged
// (TestTableRows).
package columns

import (
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kubernetes/pkg/printers"
	printersinternal "k8s.io/kubernetes/pkg/printers/internalversion"

	"github.com/knarr-io/knarr/internal/api"
)

var tables = sync.OnceValue(func() *printers.HumanReadableGenerator {
	return printers.NewTableGenerator().With(printersinternal.AddHandlers)
})

// Of returns the columns and rows of objects that res serves in group-version gv.
func Of(res *api.Resource, gv schema.GroupVersion, objs []api.Object) (*metav1.Table, error) {
	if !res.Unstructured && res.Cells == nil {
		if len(objs) == 1 {
			return Table(objs[0])
		}
		list, err := res.ListOf(gv, objs)
		if err != nil {
			return nil, err
		}
		return Table(list)
	}
	columns, cells := res.Columns, res.Cells
	if cells == nil {
		columns, cells = plainColumns(), func(obj api.Object) []any { return plainCells(obj) }
	}
	table := &metav1.Table{ColumnDefinitions: columns, Rows: make([]metav1.TableRow, len(objs))}
	for i, o := range objs {
		table.Rows[i] = metav1.TableRow{Cells: cells(o), Object: runtime.RawExtension{Object: o}}
	}
	return table, nil
}

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
	kinds, _, err := api.Scheme.ObjectKinds(obj)
	if err != nil {
		return nil, err
	}
	in, err := api.Scheme.UnsafeConvertToVersion(obj, schema.GroupVersion{Group: kinds[0].Group, Version: runtime.APIVersionInternal})
	if err != nil {
		return nil, err
	}
	return tables().GenerateTable(in, printers.GenerateOptions{Wide: true})
}

// plainTable is for kinds that upstream has no columns for: name and creation time.
func plainTable(obj runtime.Object) *metav1.Table {
	table := &metav1.Table{ColumnDefinitions: plainColumns()}
	add := func(item runtime.Object) error {
		var cells []any
		if m, err := meta.Accessor(item); err == nil {
			cells = plainCells(m)
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

func plainColumns() []metav1.TableColumnDefinition {
	doc := metav1.ObjectMeta{}.SwaggerDoc()
	return []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name", Description: doc["name"]},
		{Name: "Created At", Type: "date", Description: doc["creationTimestamp"]},
	}
}

func plainCells(m metav1.Object) []any {
	return []any{m.GetName(), m.GetCreationTimestamp().UTC().Format(time.RFC3339)}
}
