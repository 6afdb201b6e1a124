// A stand-in for Windows' vssapi.dll, for tests under Wine, whose own has no shadow copies: an object that takes the calls of a backup in the order that
// the documentation wants, answers VSS_E_BAD_STATE to any other order, and writes down what it was asked. The interface is the compiler's own vsbackup.h,
// so a function that hikae calls by a wrong place in the table is another function here.
//
// The variable HIKAE_SHADOW_COPIES names a file with a line for each thing that it shall do:
//     log FILE              where the calls are written down
//     copy VOLUME FILE      the volume has shadow copies, and FILE is the device that is one
//     fail CALL CODE        that call fails with that code (hexadecimal)
//     end CALL CODE         that call begins well, and what it began ends with that code
//     busy COUNT            so often another program is making shadow copies
//     pending COUNT         whatever is begun is not done when it is first asked for, but so many times later
//     writer NAME STATE CODE  a program, and how it went with it
//
// Source: "Overview of Processing a Backup Under VSS" and the pages of IVssBackupComponents in the Windows documentation.
#include <cstdio>
#include <cstdlib>
#include <cwchar>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <windows.h>
#include <vss.h>
#include <vswriter.h>
#include <vsbackup.h>
#include <vsserror.h>

namespace {

struct Writer {
    std::string name;
    int state;
    HRESULT code;
};

struct Plan {
    std::string log;
    std::map<std::string, std::string> copies;
    std::map<std::string, HRESULT> failures, ends;
    std::vector<Writer> writers;
    int busy = 0, pending = 0;

    Plan() {
        const char *file = std::getenv("HIKAE_SHADOW_COPIES");
        std::ifstream lines(file ? file : "");
        std::string line, what, a, b, c;
        while (std::getline(lines, line)) {
            std::istringstream words(line);
            words >> what >> a >> b >> c;
            auto code = [](const std::string &text) { return static_cast<HRESULT>(std::stoul(text, nullptr, 16)); };
            if (what == "log") log = a;
            else if (what == "copy") copies[a] = b;
            else if (what == "fail") failures[a] = code(b);
            else if (what == "end") ends[a] = code(b);
            else if (what == "busy") busy = std::stoi(a);
            else if (what == "pending") pending = std::stoi(a);
            else if (what == "writer") writers.push_back({a, std::stoi(b), code(c)});
        }
    }
};

Plan &plan() {
    static Plan plan;
    return plan;
}

void note(const std::string &line) {
    if (FILE *log = std::fopen(plan().log.c_str(), "ab")) {
        std::fprintf(log, "%s\n", line.c_str());
        std::fclose(log);
    }
}

std::string narrow(const wchar_t *text) {
    std::string narrow;
    for (; *text; text++) narrow.push_back(*text < 128 ? static_cast<char>(*text) : '?');
    return narrow;
}

wchar_t *wide(const std::string &text) {
    auto *wide = static_cast<wchar_t *>(CoTaskMemAlloc((text.size() + 1) * sizeof(wchar_t)));
    for (size_t i = 0; i <= text.size(); i++) wide[i] = static_cast<unsigned char>(text.c_str()[i]);
    return wide;
}

// Objects that live: none may be left when the program ends.
int living = 0;

struct Async : IVssAsync {
    HRESULT end;
    int pending;
    explicit Async(HRESULT end) : end(end), pending(plan().pending) { living++; }
    virtual ~Async() { living--; }
    HRESULT STDMETHODCALLTYPE QueryInterface(REFIID, void **) override { return E_NOINTERFACE; }
    ULONG STDMETHODCALLTYPE AddRef() override { return 2; }
    ULONG STDMETHODCALLTYPE Release() override { delete this; return 0; }
    HRESULT STDMETHODCALLTYPE Cancel() override { note("Cancel"); return S_OK; }
    HRESULT STDMETHODCALLTYPE Wait(DWORD) override { return S_OK; }
    HRESULT STDMETHODCALLTYPE QueryStatus(HRESULT *code, INT *reserved) override {
        if (reserved) return E_INVALIDARG;
        *code = pending-- > 0 ? VSS_S_ASYNC_PENDING : end;
        return S_OK;
    }
};

enum State { Made, Initialized, Ready, Gathered, Started, Prepared, Done, Told, Ended };

#define UNUSED(name, ...) \
    HRESULT STDMETHODCALLTYPE name(__VA_ARGS__) override { note("unexpected " #name); return E_NOTIMPL; }
#define L LPCWSTR

struct Backup : IVssBackupComponents {
    State state = Made;
    std::vector<std::string> volumes;

    Backup() { living++; }
    virtual ~Backup() { living--; }

    // Whether a call may be made now; the state behind it.
    HRESULT call(const char *name, State least, State most, State behind, const std::string &about = "") {
        note(name + (about.empty() ? "" : " " + about));
        if (state < least || state > most) return VSS_E_BAD_STATE;
        auto failure = plan().failures.find(name);
        if (failure != plan().failures.end()) return failure->second;
        state = behind;
        return S_OK;
    }
    HRESULT begin(const char *name, State least, State most, State behind, IVssAsync **async) {
        HRESULT called = call(name, least, most, behind);
        if (FAILED(called)) return called;
        auto end = plan().ends.find(name);
        *async = new Async(end == plan().ends.end() ? VSS_S_ASYNC_FINISHED : end->second);
        return S_OK;
    }

    HRESULT STDMETHODCALLTYPE QueryInterface(REFIID, void **) override { return E_NOINTERFACE; }
    ULONG STDMETHODCALLTYPE AddRef() override { return 2; }
    ULONG STDMETHODCALLTYPE Release() override {
        delete this;
        note("Release, living: " + std::to_string(living));
        return 0;
    }
    HRESULT STDMETHODCALLTYPE InitializeForBackup(BSTR xml) override {
        return xml ? E_INVALIDARG : call("InitializeForBackup", Made, Made, Initialized);
    }
    HRESULT STDMETHODCALLTYPE SetContext(LONG context) override {
        return call("SetContext", Initialized, Initialized, Initialized, std::to_string(context));
    }
    HRESULT STDMETHODCALLTYPE SetBackupState(boolean select, boolean bootable, VSS_BACKUP_TYPE type, boolean partial) override {
        std::ostringstream about;
        about << int(select) << ' ' << int(bootable) << ' ' << type << ' ' << int(partial);
        return call("SetBackupState", Initialized, Initialized, Ready, about.str());
    }
    HRESULT STDMETHODCALLTYPE GatherWriterMetadata(IVssAsync **async) override {
        return begin("GatherWriterMetadata", Ready, Ready, Gathered, async);
    }
    HRESULT STDMETHODCALLTYPE FreeWriterMetadata() override { return call("FreeWriterMetadata", Gathered, Gathered, Gathered); }
    HRESULT STDMETHODCALLTYPE IsVolumeSupported(VSS_ID provider, VSS_PWSZ volume, WINBOOL *supported) override {
        if (!IsEqualGUID(provider, GUID_NULL)) return E_INVALIDARG;
        *supported = plan().copies.count(narrow(volume)) != 0;
        return call("IsVolumeSupported", Initialized, Told, state, narrow(volume));
    }
    HRESULT STDMETHODCALLTYPE StartSnapshotSet(VSS_ID *set) override {
        if (plan().busy-- > 0) {
            note("StartSnapshotSet, busy");
            return VSS_E_SNAPSHOT_SET_IN_PROGRESS;
        }
        set->Data1 = 77;
        return call("StartSnapshotSet", Gathered, Gathered, Started);
    }
    HRESULT STDMETHODCALLTYPE AddToSnapshotSet(VSS_PWSZ volume, VSS_ID provider, VSS_ID *id) override {
        if (!IsEqualGUID(provider, GUID_NULL)) return E_INVALIDARG;
        HRESULT called = call("AddToSnapshotSet", Started, Started, Started, narrow(volume));
        if (FAILED(called)) return called;
        if (!plan().copies.count(narrow(volume))) return VSS_E_VOLUME_NOT_SUPPORTED;
        volumes.push_back(narrow(volume));
        *id = GUID_NULL;
        id->Data1 = 0xc0de0000u + static_cast<unsigned>(volumes.size());
        id->Data4[7] = 9;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE PrepareForBackup(IVssAsync **async) override {
        return volumes.empty() ? VSS_E_BAD_STATE : begin("PrepareForBackup", Started, Started, Prepared, async);
    }
    HRESULT STDMETHODCALLTYPE DoSnapshotSet(IVssAsync **async) override {
        return begin("DoSnapshotSet", Prepared, Prepared, Done, async);
    }
    HRESULT STDMETHODCALLTYPE GatherWriterStatus(IVssAsync **async) override {
        return begin("GatherWriterStatus", Prepared, Done, Told, async);
    }
    HRESULT STDMETHODCALLTYPE GetWriterStatusCount(UINT *count) override {
        *count = static_cast<UINT>(plan().writers.size());
        return call("GetWriterStatusCount", Told, Told, Told);
    }
    HRESULT STDMETHODCALLTYPE GetWriterStatus(UINT index, VSS_ID *instance, VSS_ID *writer, BSTR *name, VSS_WRITER_STATE *status,
                                              HRESULT *failure) override {
        if (index >= plan().writers.size()) return VSS_E_OBJECT_NOT_FOUND;
        const Writer &found = plan().writers[index];
        *instance = *writer = GUID_NULL;
        wchar_t *text = wide(found.name);
        *name = SysAllocString(text);
        CoTaskMemFree(text);
        *status = static_cast<VSS_WRITER_STATE>(found.state);
        *failure = found.code;
        return call("GetWriterStatus", Told, Told, Told);
    }
    HRESULT STDMETHODCALLTYPE FreeWriterStatus() override { return call("FreeWriterStatus", Told, Told, Told); }
    HRESULT STDMETHODCALLTYPE GetSnapshotProperties(VSS_ID id, VSS_SNAPSHOT_PROP *properties) override {
        HRESULT called = call("GetSnapshotProperties", Done, Told, state);
        if (FAILED(called)) return called;
        size_t index = id.Data1 - 0xc0de0001u;
        if (index >= volumes.size() || id.Data4[7] != 9) return VSS_E_OBJECT_NOT_FOUND;
        *properties = VSS_SNAPSHOT_PROP{};
        properties->m_SnapshotId = id;
        properties->m_pwszSnapshotDeviceObject = wide(plan().copies[volumes[index]]);
        properties->m_pwszOriginalVolumeName = wide(volumes[index]);
        properties->m_eStatus = VSS_SS_CREATED;
        living++;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE BackupComplete(IVssAsync **async) override {
        return begin("BackupComplete", Done, Told, Ended, async);
    }
    HRESULT STDMETHODCALLTYPE AbortBackup() override { return call("AbortBackup", Initialized, Told, Ended); }

    UNUSED(GetWriterComponentsCount, UINT *)
    UNUSED(GetWriterComponents, UINT, IVssWriterComponentsExt **)
    UNUSED(InitializeForRestore, BSTR)
    UNUSED(SetRestoreState, VSS_RESTORE_TYPE)
    UNUSED(GetWriterMetadataCount, UINT *)
    UNUSED(GetWriterMetadata, UINT, VSS_ID *, IVssExamineWriterMetadata **)
    UNUSED(AddComponent, VSS_ID, VSS_ID, VSS_COMPONENT_TYPE, L, L)
    UNUSED(SetBackupSucceeded, VSS_ID, VSS_ID, VSS_COMPONENT_TYPE, L, L, boolean)
    UNUSED(SetBackupOptions, VSS_ID, VSS_COMPONENT_TYPE, L, L, L)
    UNUSED(SetSelectedForRestore, VSS_ID, VSS_COMPONENT_TYPE, L, L, boolean)
    UNUSED(SetRestoreOptions, VSS_ID, VSS_COMPONENT_TYPE, L, L, L)
    UNUSED(SetAdditionalRestores, VSS_ID, VSS_COMPONENT_TYPE, L, L, boolean)
    UNUSED(SetPreviousBackupStamp, VSS_ID, VSS_COMPONENT_TYPE, L, L, L)
    UNUSED(SaveAsXML, BSTR *)
    UNUSED(AddAlternativeLocationMapping, VSS_ID, VSS_COMPONENT_TYPE, L, L, L, L, boolean, L)
    UNUSED(AddRestoreSubcomponent, VSS_ID, VSS_COMPONENT_TYPE, L, L, L, L, boolean)
    UNUSED(SetFileRestoreStatus, VSS_ID, VSS_COMPONENT_TYPE, L, L, VSS_FILE_RESTORE_STATUS)
    UNUSED(AddNewTarget, VSS_ID, VSS_COMPONENT_TYPE, L, L, L, L, boolean, L)
    UNUSED(SetRangesFilePath, VSS_ID, VSS_COMPONENT_TYPE, L, L, UINT, L)
    UNUSED(PreRestore, IVssAsync **)
    UNUSED(PostRestore, IVssAsync **)
    UNUSED(DeleteSnapshots, VSS_ID, VSS_OBJECT_TYPE, WINBOOL, LONG *, VSS_ID *)
    UNUSED(ImportSnapshots, IVssAsync **)
    UNUSED(BreakSnapshotSet, VSS_ID)
    UNUSED(Query, VSS_ID, VSS_OBJECT_TYPE, VSS_OBJECT_TYPE, IVssEnumObject **)
    UNUSED(DisableWriterClasses, const VSS_ID *, UINT)
    UNUSED(EnableWriterClasses, const VSS_ID *, UINT)
    UNUSED(DisableWriterInstances, const VSS_ID *, UINT)
    UNUSED(ExposeSnapshot, VSS_ID, VSS_PWSZ, LONG, VSS_PWSZ, VSS_PWSZ *)
    UNUSED(RevertToSnapshot, VSS_ID, WINBOOL)
    UNUSED(QueryRevertStatus, VSS_PWSZ, IVssAsync **)
};

}  // namespace

extern "C" {

__declspec(dllexport) HRESULT STDAPICALLTYPE CreateVssBackupComponentsInternal(IVssBackupComponents **backup) {
    auto failure = plan().failures.find("CreateVssBackupComponents");
    if (failure != plan().failures.end()) return failure->second;
    *backup = new Backup;
    return S_OK;
}

__declspec(dllexport) void APIENTRY VssFreeSnapshotPropertiesInternal(VSS_SNAPSHOT_PROP *properties) {
    CoTaskMemFree(properties->m_pwszSnapshotDeviceObject);
    CoTaskMemFree(properties->m_pwszOriginalVolumeName);
    living--;
}

}
