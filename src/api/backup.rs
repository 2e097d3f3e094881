//! `POST /api/v1/backup`: one file with all that this hub is, secrets included.

use std::sync::Mutex;

use tiny_http::{Response as Answer, StatusCode};

use crate::api::audit::note;
use crate::api::error::ApiError;
use crate::api::message::{FileAnswer, Reply, header};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::moving::{MoveError, backup};

/// Held while a backup is made: each takes the space of the databases for a while.
static MAKING: Mutex<()> = Mutex::new(());

/// Makes a backup and answers it. Takes as long as the disk needs; a second one meanwhile is refused.
pub(super) fn make(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let Ok(_making) = MAKING.try_lock() else {
        return Err(ApiError::new(409, "backup_running", "a backup is being made already; try again later"));
    };
    let (file, summary) = backup::unnamed(&ctx.deps.settings.current())?;
    let bytes = file.metadata().map_err(|error| ApiError::internal(&error))?.len();
    backup::remember(&ctx.deps.db)?;
    note(ctx, call, "backup", "", &format!("{} files, {bytes} bytes", summary.files));
    let disposition = format!("attachment; filename=\"{}\"", backup::usual_name());
    let lines = [("Content-Type", "application/gzip"), ("Content-Disposition", disposition.as_str())];
    let headers = lines.iter().filter_map(|(name, value)| header(name, value)).collect();
    let head = Answer::new(StatusCode(200), headers, std::io::Cursor::new(Vec::new()), None, None);
    Ok(Reply::File(Box::new(FileAnswer { head, file, bytes })))
}

impl From<MoveError> for ApiError {
    fn from(error: MoveError) -> Self {
        match error {
            MoveError::Store(error) => error.into(),
            MoveError::File { cause, .. } if cause.kind() == std::io::ErrorKind::StorageFull => {
                crate::store::StoreError::Full.into()
            }
            error => Self::internal(&error),
        }
    }
}
